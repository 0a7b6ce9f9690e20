"""What runs say: logged and printed lines and spans belong to the right run."""

from __future__ import annotations

import asyncio
import io
import logging
import logging.config
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.run_state import RunState
from tests.integration.worker_thread import working
from triggerkit import current_run, span, task
from triggerkit.worker.telemetry.journal import MAX_ENTRIES, MAX_LINE
from triggerkit.worker.telemetry.output import capture_output

LINES = """
SELECT name FROM triggerkit.spans WHERE run_id = %s AND kind = 'log' ORDER BY id
"""


@contextmanager
def saying(state: RunState, *tasks: Any) -> Iterator[None]:
    """A worker that captures output as its process does."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.INFO)
    release = capture_output(lambda line, run_id: None)
    try:
        with working(state, *tasks):
            yield
    finally:
        release()
        root.setLevel(level)


def test_lines_of_interleaved_runs_belong_to_the_run_that_said_them(triggers: RunState) -> None:
    @task
    def talks(given: dict[str, str]) -> None:
        for part in range(3):
            print(given["name"], part, end="")
            time.sleep(0.01)
            print("", "end")
        logging.getLogger("mine").info("%s logs", given["name"])
        print("no end of line", end="")

    @task
    async def atalks(given: dict[str, str]) -> None:
        for part in range(3):
            print(given["name"], part, end="")
            await asyncio.sleep(0.01)
            print("", "end")
        await asyncio.to_thread(logging.getLogger("mine").info, "%s logs", given["name"])
        print("no end of line", end="")

    names = [{"name": f"run {n}"} for n in range(8)]
    handles = talks.trigger_many(names) + atalks.trigger_many(names)
    with saying(triggers, talks, atalks):
        triggers.wait_for_status("completed", *(handle.id for handle in handles))
    for handle, given in zip(handles, names * 2, strict=True):
        name = given["name"]
        said = [f"{name} {part} end" for part in range(3)]
        assert triggers.rows(LINES, handle.id) == [*said, f"{name} logs", "no end of line"]


def test_lines_are_noted_once_however_a_task_sets_up_logging(triggers: RunState) -> None:
    mine = logging.getLogger("set_up_by_a_task")
    root = logging.getLogger()

    @task
    def talks() -> None:
        handlers = root.handlers[:]
        try:
            logging.basicConfig(force=True, level=logging.INFO)
            mine.info("after basicConfig")
            logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
            mine.warning("after dictConfig")
            root.handlers = []
            mine.warning("without handlers")
            mine.propagate = False
            mine.addHandler(logging.StreamHandler())
            mine.warning("without propagation")
            print("printed")
        finally:
            root.handlers, mine.handlers, mine.propagate = handlers, [], True

    handle = talks.trigger()
    with saying(triggers, talks):
        triggers.wait_for_status("completed", handle.id)
    places = ("basicConfig", "dictConfig")
    expected = [f"after {place}" for place in places]
    expected += ["without handlers", "without propagation", "printed"]
    assert triggers.rows(LINES, handle.id) == expected


def test_a_text_stream_around_the_bytes_of_standard_output_is_noted(triggers: RunState) -> None:
    @task(retry=1)
    def talks() -> None:
        wrapped = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", line_buffering=True)
        print("wrapped ω", file=wrapped)
        wrapped.detach()
        print("printed")

    handle = talks.trigger()
    with saying(triggers, talks):
        triggers.wait_for_status("completed", handle.id)
    assert triggers.rows(LINES, handle.id) == ["wrapped ω", "printed"]


def test_a_line_has_its_level_its_logger_and_its_traceback(triggers: RunState) -> None:
    @task
    def talks() -> None:
        print("printed")
        print("to stderr", file=sys.stderr)
        try:
            int("no luck")
        except ValueError:
            logging.getLogger("mine").exception("failed")
        logging.getLogger("mine").debug("not shown at this level")

    handle = talks.trigger()
    with saying(triggers, talks):
        triggers.wait_for_status("completed", handle.id)
    rows = triggers.rows(
        "SELECT level, name, attributes ->> 'logger' FROM triggerkit.spans ORDER BY id"
    )
    assert rows[:2] == [("stdout", "printed", None), ("stderr", "to stderr", None)]
    level, text, name = rows[2]
    assert (level, name, len(rows)) == ("error", "mine", 3)
    assert text.startswith("failed\nTraceback")
    assert text.endswith("ValueError: invalid literal for int() with base 10: 'no luck'")


def test_spans_are_nested_and_tell_times_facts_and_errors(triggers: RunState) -> None:
    @task(retry=1)
    def fetches() -> None:
        with span("outer", url="http://x") as facts:
            with span("inner"):
                print("inside")
                time.sleep(0.02)
            facts["rows"] = 3
            with span("broken"):
                raise ValueError("no luck")

    handle = fetches.trigger()
    with saying(triggers, fetches):
        triggers.wait_for_status("failed", handle.id)
    found = {
        name: row
        for name, *row in triggers.rows(
            "SELECT name, span_id, parent, attributes, error, "
            "extract(epoch FROM ended_at - started_at)::float FROM triggerkit.spans"
        )
    }
    outer_id, parent, attributes, error, _ = found["outer"]
    assert (parent, attributes, error) == (
        None,
        {"url": "http://x", "rows": 3},
        "ValueError: no luck",
    )
    assert (found["inner"][1], found["broken"][1]) == (outer_id, outer_id)
    assert found["inside"][1] == found["inner"][0]
    assert found["inner"][4] > 0.02
    assert (found["inner"][3], found["broken"][3]) == (None, "ValueError: no luck")


def test_whatever_is_said_neither_fails_the_run_nor_loses_what_others_say(
    triggers: RunState,
) -> None:
    @task
    def strange() -> None:
        cyclic: list[Any] = []
        cyclic.append(cyclic)
        values = {"nul": "a\x00b", "surrogate": "\ud800", "any": object(), "cyclic": cyclic}
        for name, value in values.items():
            with span(name, value=value):
                pass
        with pytest.raises(ValueError, match="b"), span("error"):
            raise ValueError("a\x00b\ud800")
        print("a\x00b", "\ud800")
        with span("large", text="x" * 1_000_000):
            pass
        print("x" * 100_000)

    @task
    def usual() -> None:
        print("a usual line")

    strange_one, usual_one = strange.trigger(), usual.trigger()
    with saying(triggers, strange, usual):
        triggers.wait_for_status("completed", strange_one.id, usual_one.id)
    assert triggers.rows(LINES, usual_one.id) == ["a usual line"]
    said = triggers.rows(LINES, strange_one.id)
    assert said[0] == "a\\x00b \\ud800"
    assert said[-1].startswith("x" * MAX_LINE + "… (")
    names = "SELECT name, error FROM triggerkit.spans WHERE kind = 'span' ORDER BY id"
    assert [name for name, _ in triggers.rows(names)] == [
        "nul", "surrogate", "any", "cyclic", "error", "large",
    ]  # fmt: skip
    assert triggers.rows(names)[4][1] == "ValueError: a\\x00b\\ud800"
    largest = "SELECT max(length(attributes::text)) FROM triggerkit.spans"
    assert triggers.rows(largest)[0] < 100_000


def test_an_attempt_that_says_too_much_is_cut_and_says_so(triggers: RunState) -> None:
    @task
    def chatty() -> None:
        for number in range(MAX_ENTRIES + 5):
            print(number)

    handle = chatty.trigger()
    with saying(triggers, chatty):
        triggers.wait_for_status("completed", handle.id)
    said = triggers.rows(LINES, handle.id)
    assert len(said) == MAX_ENTRIES + 1
    assert said[-1] == "… 5 more lines and spans were left out"


def test_outside_of_a_run_spans_do_nothing_and_there_is_no_run() -> None:
    with span("nothing", a=1) as facts:
        facts["b"] = 2
    with pytest.raises(LookupError, match="no run executes here"):
        current_run()

"""Errors and values that break whoever looks at them change no outcome, and are told of."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.unit.worker.test_failure import UNDESCRIBABLE, Quitting
from triggerkit import Retry, RetryAfter, RunContext, span, task
from triggerkit.errors import TaskImportError
from triggerkit.project import Project
from triggerkit.supervisor.loading import load_project_tasks
from triggerkit.supervisor.logs import JsonLines, Lines
from triggerkit.testing import run_task
from triggerkit.worker.process import _prepare

each = pytest.mark.parametrize("error", UNDESCRIBABLE.values(), ids=UNDESCRIBABLE.keys())


class Unshown:
    """A value that cannot be shown."""

    def __repr__(self) -> str:
        raise SystemExit(3)


class Strict(logging.Handler):
    """What a project may have: a handler that raises what it meets."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.Formatter().format(record)
        raise OSError("the disk is full")


@each
@pytest.mark.parametrize("at", ["start", "success"])
def test_a_hook_that_raises_it_is_ignored_and_the_others_are_called(
    error: Exception, at: str
) -> None:
    called: list[str] = []

    @task(retry=1)
    def work() -> str:
        return "done"

    def raises(run: RunContext, output: Any = None) -> None:
        raise error

    def is_called(run: RunContext, output: Any = None) -> None:
        called.append(at)

    decorate = work.on_start if at == "start" else work.on_success
    for hook in (raises, is_called):
        decorate(hook)
    handler = Strict()
    logging.getLogger().addHandler(handler)
    try:
        run = run_task(work)
    finally:
        logging.getLogger().removeHandler(handler)
    assert (run.status, run.output, called) == ("completed", "done", [at])
    [line] = [line for line in run.lines if "hook failed" in line]
    assert type(error).__name__ in line


@each
def test_in_a_span_it_stays_what_it_is(error: Exception) -> None:
    @task(retry=1)
    def work() -> None:
        with span("part"):
            raise error

    run = run_task(work)
    assert run.error is not None
    assert run.error.type == type(error).__name__
    [part] = run.spans
    assert part.error is not None
    assert part.error.startswith(type(error).__name__)


def test_in_a_span_a_decision_stays_one() -> None:
    class Away(RetryAfter):
        def __getattr__(self, name: str) -> Any:
            raise KeyError(name)

    @task(retry=Retry(max_attempts=1))
    def work() -> None:
        with span("part"):
            raise Away(60)

    assert run_task(work).status == "retrying"


def test_attributes_that_cannot_be_shown_break_no_span() -> None:
    @task
    def work() -> str:
        with span("part", value=Unshown(), values={1: Unshown()}) as facts:
            facts["more"] = Unshown()
        return "done"

    run = run_task(work)
    assert run.output == "done"
    [part] = run.spans
    assert part.attributes["value"] == "(Unshown cannot be shown as text)"


@each
def test_what_is_prepared_may_raise_it(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def prepare() -> None:
        raise error

    @task(prepare=prepare)
    def work() -> None: ...

    _prepare({"work": work}, event_loop=None)  # type: ignore[arg-type]
    assert f"preparing a task failed: {type(error).__name__}" in caplog.text


@each
@pytest.mark.parametrize("formatter", [JsonLines(), Lines()], ids=["json", "text"])
def test_our_lines_tell_of_it(error: Exception, formatter: logging.Formatter) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    with pytest.raises(type(error)) as raised:
        raise error
    facts = (raised.type, raised.value, raised.tb)
    handler.handle(logging.LogRecord("a", logging.ERROR, __file__, 1, "text", (), facts))
    assert type(error).__name__ in stream.getvalue()
    assert "test_undescribable.py" in stream.getvalue()


@each
def test_what_a_task_logs_of_it_is_a_line_of_its_run(error: Exception) -> None:
    @task
    def work() -> None:
        try:
            raise error
        except type(error):
            logging.getLogger("theirs").exception("it went wrong")

    logging.getLogger("theirs").propagate = False
    assert type(error).__name__ in run_task(work).lines[0]


def test_a_module_that_raises_it_is_told_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "quitting_tasks.py").write_text(
        "from tests.unit.worker.test_failure import Quitting\nraise Quitting()\n"
    )
    project = Project(tmp_path, tasks=("quitting_tasks",))
    with pytest.raises(TaskImportError, match=r"raise Quitting\(\)\n.*Quitting") as refused:
        load_project_tasks(project)
    assert isinstance(refused.value.__cause__, Quitting)

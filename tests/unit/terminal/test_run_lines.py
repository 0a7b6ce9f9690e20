"""Lines of runs: counted in words, one time each, the same error once in ten seconds."""

from __future__ import annotations

import asyncio
import re
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from triggerkit.supervisor.dev.console import TextConsole
from triggerkit.terminal import run_lines
from triggerkit.terminal.console import counted
from triggerkit.terminal.run_lines import push_line, run_line

TRACEBACK = 'Traceback:\n  File "tasks.py", line 16, in embed\nRuntimeError: row {row}\n'


def facts(**changed: Any) -> dict[str, Any]:
    return {
        "event": "run",
        "task": "embed",
        "run": "run_1",
        "status": "completed",
        "items": None,
        "key": None,
        "ms": 12.3,
        "attempt": 1,
        "max_attempts": 5,
        "retry_in_s": None,
        "error": None,
        **changed,
    }


def failing(row: int, status: str = "retrying", **changed: Any) -> dict[str, Any]:
    error = {"traceback": TRACEBACK.format(row=row)}
    return facts(status=status, key=f"public.posts:[{row}]", error=error, **changed)


@pytest.mark.parametrize(("count", "words"), [(1, "1 change"), (2, "2 changes"), (0, "0 changes")])
def test_nouns_are_counted(count: int, words: str) -> None:
    assert counted(count, "change") == words


def test_a_batch_of_one_is_one_change() -> None:
    line = run_line(facts(items=1))
    assert line.endswith("embed 1 change [dim]run_1[/] completed in 12 ms")


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({}, "POST /api/create-embedding-for-post 200 in 12 ms, 26 changes"),
        ({"items": 1}, "POST /api/create-embedding-for-post 200 in 12 ms, 1 change"),
        (
            {"failed_items": 2},
            "POST /api/create-embedding-for-post 200 in 12 ms, 26 changes, 2 failed",
        ),
        (
            {"url": "https://example.com/hook", "status": 202},
            "POST https://example.com/hook 202 in 12 ms, 26 changes",
        ),
    ],
)
def test_a_delivery_is_a_line(changed: dict[str, Any], line: str) -> None:
    url = "http://127.0.0.1:8000/api/create-embedding-for-post"
    facts = {"url": url, "status": 200, "ms": 12.3, "items": 26, "failed_items": 0, **changed}
    assert push_line(facts) == line


def test_lines_of_deliveries_and_runs_break_no_words_at_80_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = "http://127.0.0.1:8000/api/create-embedding-for-every-post-of-the-whole-blog"
    push = {"event": "push", "url": url, "status": 200, "ms": 1, "items": 26, "failed_items": 0}
    console = TextConsole(quiet=False)
    console._console.width = 80
    console.line("stream", push)
    console.line("worker", facts(task="create_embedding_for_every_post_of_the_blog", items=26))
    shown = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "/api/create-embedding-for-every-post-of-the-whole-blog" in shown
    assert " ".join(shown.split()).count("26 changes") == 2
    assert "create_embedding_for_every_post_of_the_blog" in shown


def test_a_backfill_is_a_bar_whose_time_is_labelled() -> None:
    console = TextConsole(quiet=False)
    console._progress.add_task("copies public.items", total=2000, completed=500)
    file = StringIO()
    Console(file=file, width=100).print(console._progress.get_renderable())
    assert re.search(
        r"backfill copies public\.items [━╸╺ ]+ +500/2000 -:--:-- left", file.getvalue()
    )


def test_a_quiet_console_shows_no_delivery(capsys: pytest.CaptureFixture[str]) -> None:
    push = {"event": "push", "url": "http://x/y", "status": 200, "ms": 1, "items": 1}
    TextConsole(quiet=True).line("stream", {**push, "failed_items": 0})
    assert capsys.readouterr().out == ""


def test_of_an_attempt_that_is_tried_again_one_time_is_told() -> None:
    line = run_line(failing(1, retry_in_s=1.94))
    assert line.endswith("[dim]run_1[/] retrying, next attempt in 1.9 s (1/5)")


def test_an_error_that_repeats_is_told_once_and_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lines, "TOGETHER_S", 0.05)

    async def scenario() -> None:
        console = TextConsole(quiet=False)
        for row in range(312):
            console.line("worker", failing(row))
        console.line("worker", failing(7, status="failed"))
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.06, done.set_result, None)
        await done
        console.line("worker", failing(1))
        console.close()

    asyncio.run(scenario())
    shown = capsys.readouterr().out
    assert shown.count('  File "tasks.py", line 16') == 2
    assert "embed ×313 in 0.05 s: RuntimeError: row 0" in shown
    assert "public.posts:[7] run_1 failed in 12 ms" in shown
    assert shown.count("retrying") == 2


def test_what_was_counted_is_told_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        console = TextConsole(quiet=False)
        for row in range(3):
            console.line("worker", failing(row))
        console.close()

    asyncio.run(scenario())
    assert "embed ×3 in 10 s: RuntimeError: row 0" in capsys.readouterr().out

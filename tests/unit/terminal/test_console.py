"""What a terminal would obey is shown as its code."""

from __future__ import annotations

import re
import time
from io import StringIO
from typing import Any

import pytest
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Column, Table

from triggerkit.supervisor.dev.console import TextConsole
from triggerkit.terminal.console import TerminalConsole, visible

CLIPBOARD = "\x1b]52;c;cm0gLXJmIH4=\x07"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é \U0001f600", "plain é \U0001f600"),
        ("two\nlines\tof it", "two\nlines\tof it"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b31m", r"\x9b31m"),
        ("back\x08\x7f\r", r"back\x08\x7f\x0d"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
        ("", ""),
    ],
)
def test_control_characters_are_written_as_their_codes(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_no_text_reaches_the_terminal_as_a_command() -> None:
    file = StringIO()
    console = TerminalConsole(file=file, force_terminal=True, color_system=None, width=200)
    console.print(CLIPBOARD, markup=False)
    console.print(f"[bold]{escape(CLIPBOARD)}[/]")
    table = Table("title")
    table.add_row(CLIPBOARD)
    console.print(table)
    shown = file.getvalue()
    assert "\x1b]" not in shown
    assert "\x07" not in shown
    assert shown.count(r"\x1b]52;c;cm0gLXJmIH4=\x07") == 3


def test_dev_shows_the_errors_of_runs_so(capsys: pytest.CaptureFixture[str]) -> None:
    facts: dict[str, Any] = {
        "event": "run",
        "task": "embed",
        "run": "run_1",
        "status": "failed",
        "ms": 1.0,
        "key": CLIPBOARD,
        "error": {"traceback": f"ValueError: {CLIPBOARD}"},
    }
    TextConsole(quiet=False).line("worker", facts)
    shown = capsys.readouterr().out
    assert shown.count(r"\x1b]52;") == 2
    assert "\x1b]" not in shown


def a_table() -> Table:
    table = Table("id", "task", "reason", box=None, pad_edge=False)
    for number in range(2):
        reason = f"its key is held by run_{'m' * 26} (retrying)"
        table.add_row(f"run_{number:026}", "create_embedding_for_post", reason)
    return table


def test_a_table_that_is_piped_has_a_line_for_each_row_and_cuts_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    file = StringIO()
    TerminalConsole(file=file).print(a_table())
    lines = file.getvalue().splitlines()
    assert len(lines) == 3
    assert all(f"run_{'m' * 26} (retrying)" in line for line in lines[1:])


def test_a_piped_table_has_its_columns_below_one_another_and_no_control_characters() -> None:
    table = Table("name", Column("ms", justify="right"), "說明", box=None, pad_edge=False)
    table.add_row("[bold]a[/]", "7", CLIPBOARD)
    table.add_row(escape("[b]"), "1,200", "two\nlines")
    table.add_row("數據", "", ProgressBar(total=10, completed=5, width=4))
    file = StringIO()
    TerminalConsole(file=file).print(table)
    assert file.getvalue().splitlines() == [
        "name     ms  說明",
        r"a         7  \x1b]52;c;cm0gLXJmIH4=\x07",
        r"[b]   1,200  two\x0alines",
        "數據         ━━",
    ]


def test_ten_thousand_rows_are_piped_in_a_moment() -> None:
    table = Table(*"abcdefgh", box=None, pad_edge=False)
    for number in range(10_000):
        table.add_row(f"row_{number}", *["http://127.0.0.1:1/"] * 7)
    since = time.process_time()
    TerminalConsole(file=StringIO()).print(table)
    assert time.process_time() - since < 1.0


def test_a_table_on_a_narrow_terminal_is_within_it_and_cuts_nothing() -> None:
    file = StringIO()
    console = TerminalConsole(file=file, force_terminal=True, color_system=None, width=80)
    console.print(a_table())
    lines = re.sub(r"\x1b\[\d*m", "", file.getvalue()).splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in file.getvalue()
    assert [line[:30] for line in lines if "run_0" in line] == [f"run_{n:026}" for n in range(2)]


def test_no_color_leaves_no_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    file = StringIO()
    console = TerminalConsole(file=file, force_terminal=True, width=80)
    console.print("[bold red]wrong[/]")
    console.print(a_table())
    assert "\x1b" not in file.getvalue()

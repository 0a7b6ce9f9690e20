"""Lines that are printed by a thread: whoever does not take them holds nobody up."""

from __future__ import annotations

import threading

from triggerkit.tunnel.display import Output, left_out
from triggerkit.tunnel.printer import MOST_LINES, Printer


def said_of(lines: int) -> str:
    return left_out(Output.compact, lines)


def test_lines_are_printed_in_order_before_it_is_closed() -> None:
    lines: list[str] = []
    printer = Printer(lines.append, said_of, lambda: None)
    for number in range(100):
        printer(str(number))
    printer.close()
    assert lines == [str(number) for number in range(100)]


def test_a_terminal_that_takes_nothing_holds_nobody_up() -> None:
    lines: list[str] = []
    writing, taken = threading.Event(), threading.Event()

    def write(line: str) -> None:
        writing.set()
        assert taken.wait(20)
        lines.append(line)

    printer = Printer(write, said_of, lambda: None)
    printer("first")
    assert writing.wait(20)
    for number in range(MOST_LINES + 3):
        printer(str(number))
    assert lines == []
    taken.set()
    printer.close()
    kept = [str(number) for number in range(MOST_LINES)]
    assert lines == ["first", *kept, "3 lines left out: nobody took them"]


def test_it_is_told_once_nobody_reads_them() -> None:
    broken = threading.Event()

    def write(line: str) -> None:
        raise BrokenPipeError

    printer = Printer(write, said_of, broken.set)
    printer("x")
    assert broken.wait(20)
    printer("y")
    printer.close()

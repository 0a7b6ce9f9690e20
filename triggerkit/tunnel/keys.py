"""Read single keys of a terminal, which is as it was before once they are not read any more."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

try:
    import termios
    import tty
except ImportError:
    # Windows has neither: there are no keys.
    termios = tty = None  # type: ignore[assignment]


def has_keys() -> bool:
    """Return whether somebody types at a terminal that keys can be read of: to a command in its
    background it belongs no more than to one whose output goes elsewhere."""
    if termios is None or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    with suppress(OSError):
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    # A terminal that controls nobody stops nobody.
    return True


@contextmanager
def read_keys(pressed: Callable[[str], None]) -> Iterator[None]:
    """Call `pressed` for each key meanwhile; Ctrl-C stays what it is."""
    if not has_keys():
        yield
        return
    descriptor, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(descriptor)

    def read() -> None:
        keys = b""
        with suppress(OSError):
            keys = os.read(descriptor, 64)
        if not keys:
            # Nobody is there any more: it would be told again and again.
            loop.remove_reader(descriptor)
        for key in keys.decode(errors="ignore"):
            pressed(key)

    try:
        tty.setcbreak(descriptor)
        loop.add_reader(descriptor, read)
        yield
    finally:
        loop.remove_reader(descriptor)
        with suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

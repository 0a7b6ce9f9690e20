"""Processes that wait with all of ours imported, so that changed code takes over sooner.

Starting a process is mostly importing. `dev` starts the next ones ahead; they import nothing of the
project until a byte on their standard input tells them to go on, and end when that is closed.
"""

from __future__ import annotations

import os
import runpy
import sys
from importlib import import_module

from triggerkit.embedded import lifeline
from triggerkit.supervisor.logs import announce

#: Set for a process that waits.
VARIABLE = "TRIGGERKIT_STANDBY"

#: What tells it to go on.
GO = b"1"


def wait_for_turn(*, is_told: bool = False) -> None:
    """Return when this process is to go on: at once unless it is on standby, or always told."""
    on_standby = bool(os.environ.get(VARIABLE))
    if on_standby:
        announce("standby")
    if (on_standby or is_told) and not sys.stdin.buffer.read(len(GO)):
        sys.exit(0)


def main() -> None:
    """`standby MODULE ARGUMENT…`: import a module, and when told to run `triggerkit ARGUMENT…`."""
    lifeline.watch()
    module, *arguments = sys.argv[1:]
    import_module(module)
    wait_for_turn()
    sys.argv = ["triggerkit", *arguments]
    runpy.run_module("triggerkit", run_name="__main__")


if __name__ == "__main__":
    main()

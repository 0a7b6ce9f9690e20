"""End a process in time, whatever threads and exit functions the project's code has."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures.thread import _threads_queues

logger = logging.getLogger(__name__)

#: Seconds that threads of the project's may go on once all else is done, and then its exit
#: functions.
LEAVE_S = 5.0


def leave_in_time(code: int) -> None:
    """Have this process end with `code` soon, also if the interpreter waits for a thread for ever.

    Called once nothing is left to do but to end.
    """
    exiting = threading.Event()
    # Registered last, it is called first: once the interpreter has waited for all threads.
    atexit.register(exiting.set)
    _soon(lambda: _leave(code, exiting))


def _leave(code: int, exiting: threading.Event) -> None:
    _soon(lambda: os._exit(code))
    if not exiting.is_set():
        names = ", ".join(_waited_for())
        logger.warning("threads of the project's do not end; leaving without them: %s", names)
        atexit._run_exitfuncs()
    os._exit(code)


def _waited_for() -> list[str]:
    """Return the names of the threads that the interpreter waits for."""
    threads = set(threading.enumerate()) - {threading.main_thread()}
    # It waits for those of executors, too, which are daemons where a daemon started them.
    return sorted(t.name for t in threads if not t.daemon or t in _threads_queues)


def _soon(function: Callable[[], None]) -> None:
    timer = threading.Timer(LEAVE_S, function)
    timer.daemon = True
    timer.start()

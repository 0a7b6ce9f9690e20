"""Our log handlers: a run that is stopped while it logs takes nobody's lines with it."""

from __future__ import annotations

import ctypes
import io
import logging
import threading

from triggerkit.supervisor.logs import StreamHandler
from triggerkit.worker.telemetry.output import RunHandler

#: Times a thread is stopped while it logs.
STOPS = 200


class Stopped(BaseException):
    """What a thread is stopped by."""


def stop(thread: threading.Thread) -> None:
    """Raise in a thread, as a run is stopped."""
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(Stopped)
    )
    thread.join(10)


def test_a_thread_that_is_stopped_while_it_logs_leaves_the_handlers_to_others() -> None:
    stream = io.StringIO()
    logger = logging.Logger("a run's")
    logger.handlers = [StreamHandler(stream), RunHandler()]

    def log(began: threading.Event) -> None:
        try:
            while True:
                logger.warning("a line")
                began.set()
        except Stopped:
            return

    for _ in range(STOPS):
        began = threading.Event()
        thread = threading.Thread(target=log, args=[began], daemon=True)
        thread.start()
        assert began.wait(10)
        stop(thread)
        assert not thread.is_alive()
    last = threading.Thread(target=logger.warning, args=["the last line"], daemon=True)
    last.start()
    last.join(10)
    assert stream.getvalue().endswith("the last line\n")

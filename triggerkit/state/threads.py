"""Threads that a process cannot do without."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

#: Seconds before work that broke begins anew.
RETRY_S = 0.5


class LastingThread(threading.Thread):
    """Does its work until that returns. Work that raises, whatever it is, begins anew."""

    def __init__(self, work: Callable[[], object], name: str, *, daemon: bool = False) -> None:
        super().__init__(name=name, daemon=daemon)
        self._work = work

    def run(self) -> None:
        """Do the work."""
        while True:
            try:
                self._work()
                return
            except BaseException as error:
                # Also what is told may raise: its handlers are the project's.
                with contextlib.suppress(BaseException):
                    logger.error(
                        "the thread %s failed and was restarted", self.name, exc_info=error
                    )
                time.sleep(RETRY_S)

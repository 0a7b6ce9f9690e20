"""Code that a process of the project runs in the tests: it answers what it is asked for."""

from __future__ import annotations

import os
import time
from typing import Any

from triggerkit.consumers.calls.process import Answering, answer_requests

#: Of one answer: more than a reader takes in before it lets the writer wait.
MANY_BYTES = 16 * 1024 * 1024


def load(_: dict[str, Any]) -> Answering:
    """Return what answers."""
    return _answer


def _answer(_: bytes, request: bytes) -> tuple[bytes, bytes]:
    if request == b"much":
        return b"R", bytes(MANY_BYTES)
    if request == b"child":
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        return b"R", str(child).encode()
    if request == b"end":
        os._exit(1)
    return b"R", request


if __name__ == "__main__":
    answer_requests(load)

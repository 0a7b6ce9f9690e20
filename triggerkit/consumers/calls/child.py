"""The process that calls one consumer's filter and transform: `python -m …calls.child`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from triggerkit.consumers.calls.process import SPENT, Answering, answer_requests
from triggerkit.consumers.filters.functions import load_function
from triggerkit.consumers.selection import Faulty, filtered, transformed
from triggerkit.log.entry import LARGEST_BYTES
from triggerkit.log.json_object import split_object

#: What a request is beside a message: one that was wanted before, which stays so.
WANTED_BEFORE = b"P"

#: What an answer is: wanted as it is, not wanted, what to send, a fault.
AS_IT_IS, UNWANTED, SENT, FAULT = b"W", b"N", b"S", b"X"

Function = Callable[[Any], Any]


def load(setting: dict[str, Any]) -> Answering:
    """Return what answers for the functions of `setting`.

    Raises:
        ConfigurationError: one cannot be loaded.
    """
    filter_, transform = (name and load_function(name) for name in setting["functions"])
    return lambda kind, message: _called(filter_, transform, message, kind == WANTED_BEFORE)


def _called(
    filter_: Function | None, transform: Function | None, message: bytes, was_wanted: bool
) -> tuple[bytes, bytes]:
    if filter_ and split_object(message)["action"] != b'"truncate"':
        is_wanted = filtered(filter_, message)
        if isinstance(is_wanted, Faulty):
            return _fault(is_wanted)
        if not (is_wanted or was_wanted):
            return UNWANTED, b""
    if not transform:
        return AS_IT_IS, b""
    sent = transformed(transform, message)
    if isinstance(sent, bytes) and len(sent) > LARGEST_BYTES:
        sent = Faulty(f"the transform made more than {LARGEST_BYTES >> 20} MiB")
    return _fault(sent) if isinstance(sent, Faulty) else (SENT, sent)


def _fault(fault: Faulty) -> tuple[bytes, bytes]:
    kind = SPENT if fault.reason.endswith(f" raised {MemoryError.__name__}") else FAULT
    return kind, fault.reason.encode()


if __name__ == "__main__":
    answer_requests(load)

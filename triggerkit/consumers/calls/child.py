"""The process that calls one consumer's filter and transform: `python -m …calls.child`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from triggerkit.consumers.calls.process import Answering, answer_requests
from triggerkit.consumers.filters.functions import load_function
from triggerkit.consumers.selection import Faulty, filtered, transformed
from triggerkit.log.json_object import split_object

#: What an answer is: wanted as it is, not wanted, what to send, a fault.
AS_IT_IS, UNWANTED, SENT, FAULT = b"W", b"N", b"S", b"X"

Function = Callable[[Any], Any]


def load(setting: dict[str, Any]) -> Answering:
    """Return what answers for the functions of `setting`.

    Raises:
        ConfigurationError: one cannot be loaded.
    """
    filter_, transform = (name and load_function(name) for name in setting["functions"])
    return lambda message: _called(filter_, transform, message)


def _called(
    filter_: Function | None, transform: Function | None, message: bytes
) -> tuple[bytes, bytes]:
    if filter_ and split_object(message)["action"] != b'"truncate"':
        is_wanted = filtered(filter_, message)
        if isinstance(is_wanted, Faulty):
            return FAULT, is_wanted.reason.encode()
        if not is_wanted:
            return UNWANTED, b""
    if not transform:
        return AS_IT_IS, b""
    sent = transformed(transform, message)
    return (FAULT, sent.reason.encode()) if isinstance(sent, Faulty) else (SENT, sent)


if __name__ == "__main__":
    answer_requests(load)

"""The process that calls one consumer's filter and transform: `python -m …calls.child`.

It reads messages from its standard input and answers on its standard output, a frame each: four
bytes of length, then a byte that says what it is, then the content. What the functions print goes
to standard error.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import orjson

from triggerkit import lifeline
from triggerkit.consumers.filters.functions import load_function
from triggerkit.consumers.selection import Faulty, filtered, transformed
from triggerkit.errors import ConfigurationError
from triggerkit.log.json_object import split_object
from triggerkit.project import call_own

#: What a request is.
MESSAGE = b"M"

#: What an answer is: ready, cannot be loaded; wanted as it is, not wanted, what to send, a fault.
READY, BROKEN = b"R", b"B"
AS_IT_IS, UNWANTED, SENT, FAULT = b"W", b"N", b"S", b"X"

LENGTH = struct.Struct("!I")

Function = Callable[[Any], Any]


def frame(kind: bytes, content: bytes = b"") -> bytes:
    """Return a frame as it goes through a pipe."""
    return LENGTH.pack(len(content) + 1) + kind + content


def main() -> None:
    """Answer requests until there are none any more."""
    lifeline.watch()
    # The functions read and write nothing of ours.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    setting = orjson.loads(requests.read(LENGTH.unpack(requests.read(LENGTH.size))[0])[1:])
    sys.path[:] = setting["path"]
    call_own(setting["own"])
    try:
        filter_, transform = (name and load_function(name) for name in setting["functions"])
    except ConfigurationError as error:
        _answer(answers, BROKEN, str(error).encode())
        return
    _answer(answers, READY)
    while len(length := requests.read(LENGTH.size)) == LENGTH.size:
        request = requests.read(LENGTH.unpack(length)[0])
        _answer(answers, *_called(filter_, transform, request[1:]))


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


def _answer(answers: BinaryIO, kind: bytes, content: bytes = b"") -> None:
    answers.write(frame(kind, content))
    answers.flush()


if __name__ == "__main__":
    main()

"""What messages come in: a body of JSON, with one or a batch of them."""

from __future__ import annotations

import msgspec

#: Largest body, after decompression.
MAX_BODY_BYTES = 5 * 1024 * 1024


class BodyRefused(Exception):
    """The messages are refused, by an HTTP `status` and `error`."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


class _RawBatch(msgspec.Struct):
    data: list[msgspec.Raw]


class _RawBatchAlone(_RawBatch, forbid_unknown_fields=True):
    """A batch with nothing beside it."""


def split(body: bytes, *, alone: bool = False) -> tuple[bool, list[msgspec.Raw]]:
    """Return whether `body` is a batch, `{"data": [message, …]}`, and its messages: bytes of JSON.

    With `alone`, what has other fields beside `data` is none: it is a payload of its own.

    Raises:
        BodyRefused: 400 malformed.
    """
    try:
        try:
            return True, msgspec.json.decode(body, type=_RawBatchAlone if alone else _RawBatch).data
        except msgspec.ValidationError:
            return False, [msgspec.json.decode(body, type=msgspec.Raw)]
    except (msgspec.DecodeError, RecursionError) as error:
        raise BodyRefused(400, f"malformed JSON: {error}") from None

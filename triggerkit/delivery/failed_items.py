"""Read which items of a batch its receiver names as failed, in an answer of success.

What an answer may say and cannot be read is no success: the items would be lost.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from triggerkit.delivery.http.connection import MAX_ANSWER_BYTES

#: Most characters of an error that are kept of what a receiver says of an item.
MAX_ERROR_CHARS = 2000

#: What no text column stores, and what would draw lines of its own in a log.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Unreadable(Exception):
    """Nobody can tell which items the answer names as failed; the message says why."""


@dataclass(frozen=True, slots=True)
class Failed:
    """An item the receiver named as failed."""

    idempotency_key: str
    error: str
    retry_after_s: float | None


def failed_items(
    headers: Mapping[str, str], body: bytes, *, is_cut: bool = False
) -> tuple[Failed, ...]:
    """Return the items that an answer names as failed.

    Raises:
        Unreadable: it may name some, but cannot be read.
    """
    if is_cut:
        raise Unreadable(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
    encoding = headers.get("content-encoding", "").strip().lower()
    if body and encoding not in ("", "identity"):
        raise Unreadable("the answer is compressed, which was not asked for")
    if b'"failed"' not in body:
        return ()
    answer = _parsed(body)
    named = answer.get("failed") if isinstance(answer, dict) else None
    if not named:
        return ()
    if not isinstance(named, list):
        raise Unreadable("`failed` in the answer is not a list")
    return tuple(map(_item, named))


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        # What some libraries write and JSON does not have: NaN, halves of a character, a mark.
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Unreadable("`failed` in the answer is not JSON") from None


def _item(item: object) -> Failed:
    key = item.get("idempotency_key") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(key, str):
        raise Unreadable("an item of `failed` in the answer has no idempotency_key")
    return Failed(
        key, _error_text(item.get("error", "failed")), _seconds(item.get("retry_after_s"))
    )


def _seconds(value: object) -> float | None:
    """Return the seconds a receiver asks for, which may be anything that JSON has."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _error_text(error: object) -> str:
    """Return what a receiver says, which may be anything that JSON has, as a line that can be
    stored."""
    text = str(error)[:MAX_ERROR_CHARS]
    return _UNPRINTABLE.sub(lambda found: " " if found[0].isspace() else "\ufffd", text)

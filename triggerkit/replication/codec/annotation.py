"""Annotations: what a transaction says of the changes that follow in it, by a message in the WAL.

    SELECT pg_logical_emit_message(true, 'triggerkit:transaction_annotations:set', '{"by": "ann"}');

They end with the transaction, or by the prefix `…:clear`. Sequin's prefixes, which have a dot
before the verb, mean the same.
"""

from __future__ import annotations

import logging
from typing import Final

import orjson

from triggerkit.replication.codec.messages import LogicalMessage

logger = logging.getLogger(__name__)

_PREFIXES: Final = tuple(
    f"{vendor}:transaction_annotations{mark}"
    for vendor in ("triggerkit", "sequin")
    for mark in (":", ".")
)
_SET: Final = frozenset(f"{prefix}set" for prefix in _PREFIXES)
_CLEAR: Final = frozenset(f"{prefix}clear" for prefix in _PREFIXES)


def is_about(message: LogicalMessage) -> bool:
    """Return whether a message sets or clears annotations."""
    return message.prefix in _SET or message.prefix in _CLEAR


def after(message: LogicalMessage, before: str | None) -> str | None:
    """Return the annotations after `message`, as JSON; what is no JSON object changes nothing."""
    if message.prefix in _CLEAR:
        return None
    try:
        if isinstance(orjson.loads(message.content), dict):
            return message.content.decode()
    except orjson.JSONDecodeError:
        pass
    logger.warning("ignoring a transaction's annotations: they are not a JSON object")
    return before

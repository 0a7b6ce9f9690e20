"""What the messages of one entry have in common, whoever gets them: made once for all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import orjson

from triggerkit.log.entry import Entry, Subject

#: Bytes of parts that are kept, in each of two generations.
KEPT_BYTES = 8 * 1024 * 1024

#: What the parts of an entry take beside the bytes of the first.
PART_BYTES = 400


#: The bytes of a message before its idempotency key, from where that tells of the consumer no more,
#: and of the columns whose values are not known. A named tuple would cost as much as the bytes.
Parts: TypeAlias = tuple[bytes, bytes, bytes]


def parts_of(entry: Entry) -> Parts:
    """Return the parts of an entry's messages."""
    (
        position, _, schema, table, key, action, commit_lsn, commit_idx, commit_at, xid,
        record, changes, unchanged, _, backfill_id, _, _,
    ) = entry  # fmt: skip
    metadata = (
        f'{kind_of(schema, table, action)}{key},"commit_timestamp":"{commit_at}",'
        f'"commit_lsn":{commit_lsn},"commit_idx":{commit_idx},"idempotency_key":"'
    )
    told = b"null" if action != "update" else changes or (b"{}" if record else b"null")
    place = "" if backfill_id is not None else f".{commit_lsn}.{commit_idx}"
    return (
        b'{"record":%b,"changes":%b%b' % (record or b"null", told, metadata.encode()),
        f'{place}","position":{position},"xid":{"null" if xid is None else xid}'.encode(),
        b',"unchanged":%b' % orjson.dumps(unchanged) if unchanged else b"",
    )


@lru_cache(maxsize=65536)
def kind_of(schema: str, table: str, action: str) -> str:
    """Return what the messages of such changes have in common, from their action on."""
    names = orjson.dumps({"table_schema": schema, "table_name": table}).decode()[1:-1]
    return f',"action":"{action}","metadata":{{{names},"record_pks":'


class SharedParts:
    """Keeps the parts of the entries of one log that several consumers get, for those who come
    next."""

    def __init__(self, followers: Callable[[Subject], int]) -> None:
        """`followers` tells how many follow a subject."""
        self._followers = followers
        self._kept: dict[int, Parts] = {}
        self._kept_before: dict[int, Parts] = {}
        self._size_bytes = 0

    def of(self, entry: Entry) -> Parts:
        """Return the parts of an entry's messages."""
        position = entry.position
        known = self._kept.get(position) or self._kept_before.get(position)
        if known is not None:
            return known
        parts = parts_of(entry)
        if self._followers(entry.subject) > 1:
            self._keep(position, parts)
        return parts

    def _keep(self, position: int, parts: Parts) -> None:
        if self._size_bytes > KEPT_BYTES:
            self._kept_before, self._kept, self._size_bytes = self._kept, {}, 0
        self._kept[position] = parts
        self._size_bytes += len(parts[0]) + PART_BYTES

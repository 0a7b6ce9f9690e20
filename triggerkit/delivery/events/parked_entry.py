"""The entry of the log that a parked message was made of."""

from __future__ import annotations

import orjson

from triggerkit.consumers.parked.message import Head
from triggerkit.log.entry import Entry
from triggerkit.log.json_object import split_object
from triggerkit.log.reader import LogReader


async def parked_entry(reader: LogReader, head: Head, message: bytes) -> Entry:
    """Return the entry of a parked message: of the log, or as much of it as its message has."""
    stored = await reader.read_stored(head.partition, head.position - 1, head.position, 1)
    return stored[0] if stored else _entry_in(message, head)


def _entry_in(message: bytes, head: Head) -> Entry:
    """Return what a parked message tells of its entry, which the log does not have any more."""
    members = split_object(message)
    metadata = split_object(members["metadata"])
    record, changes = members["record"], members["changes"]
    unchanged = metadata.get("unchanged")
    return Entry(
        position=head.position,
        partition=head.partition,
        schema=orjson.loads(metadata["table_schema"]),
        table=orjson.loads(metadata["table_name"]),
        key=metadata["record_pks"].decode(),
        action=orjson.loads(members["action"]),
        commit_lsn=orjson.loads(metadata["commit_lsn"]),
        commit_idx=orjson.loads(metadata["commit_idx"]),
        commit_at=orjson.loads(metadata["commit_timestamp"]),
        xid=orjson.loads(metadata["xid"]),
        record=None if record == b"null" else record,
        changes=None if changes == b"null" else changes,
        unchanged=() if unchanged is None else tuple(orjson.loads(unchanged)),
    )

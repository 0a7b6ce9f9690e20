"""An entry of the log as the event that it is: its key, its JSON and its headers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

import orjson

from triggerkit.events.topics import Topic, collection_of
from triggerkit.log.entry import Entry

#: What an event calls the actions of the log. A row that a backfill read is inserted where it goes.
KINDS: Final = {
    "insert": "inserted",
    "read": "inserted",
    "update": "updated",
    "delete": "deleted",
    "truncate": "truncated",
}
_KINDS: Final = {action: kind.encode() for action, kind in KINDS.items()}

# Named tuples made without their Python-level __new__ cost half: there is an event for every row.
_make = tuple.__new__


class Event(NamedTuple):
    """One change as a message on its topic.

    `partition` and `offset` are those of the embedded log, `timestamp` that of the commit in
    milliseconds since 1970. `key` is None of a truncate. `value` is JSON; `headers` are the
    change's identity: `lsn` and `idx` (decimal), `action`, `xid`, `traceparent`, and of a row whose
    key changed its `previous_key`.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: str | None
    value: bytes
    headers: tuple[tuple[str, str], ...]


class ValueRenderer:
    """Renders entries as the JSON of their events; what many of them share is encoded once."""

    def __init__(self) -> None:
        self._ends: dict[tuple[str, str], tuple[bytes, bytes]] = {}

    def value(self, entry: Entry, old: bytes | None = None) -> bytes:
        """Return the event of an entry as JSON.

        `old` is the row before a delete, where the WAL did not carry it.
        """
        return self.of_key(entry, *key_of(entry.key), old)

    def of_key(self, entry: Entry, key: str | None, identity: bytes, old: bytes | None) -> bytes:
        """Return what `value` does of an entry whose key, and `id`, are known."""
        table = (entry.schema, entry.table)
        head, tail = self._ends.get(table) or self._of_table(table)
        parts = [head, b'"%b"' % entry.commit_at.encode(), b',"event":"%b"' % _KINDS[entry.action]]
        if key is not None:
            parts += (b',"id":', identity, b',"data":', old or entry.record or b"null")
            if entry.action == "update":
                parts += (b',"changes":', entry.changes or b"{}")
            if entry.unchanged:
                parts += (b',"unchanged":', orjson.dumps(entry.unchanged))
        parts.append(tail)
        return b"".join(parts)

    def _of_table(self, table: tuple[str, str]) -> tuple[bytes, bytes]:
        collection, name = orjson.dumps(collection_of(*table)), orjson.dumps(table[1])
        made = b'{"collection":%b,"created_at":' % collection, b',"table":%b}' % name
        self._ends[table] = made
        return made


class EventRenderer:
    """Renders the entries of one database's log as messages on its topics."""

    def __init__(self, topics: Iterable[Topic]) -> None:
        self._topics = {(topic.schema, topic.table): topic for topic in topics}
        self._values = ValueRenderer()

    def topic_of(self, entry: Entry) -> Topic | None:
        """Return the topic that has `entry`; None where none has: of a table without one, the echo
        of a truncate, a row that a backfill read for one consumer, or one without its record."""
        if entry.consumer_id is not None or entry.fault is not None:
            return None
        return self._topics.get((entry.schema, entry.table))

    def event(self, entry: Entry, old: bytes | None = None) -> Event:
        """Return the event of an entry whose table has a topic.

        `old` is the row before a delete, where the WAL did not carry it.
        """
        topic = self._topics[entry.schema, entry.table]
        key, identity = key_of(entry.key)
        return _make(
            Event,
            (
                topic.name,
                entry.partition,
                entry.position,
                milliseconds(entry.commit_at),
                key,
                self._values.of_key(entry, key, identity, old),
                headers_of(topic.database_id, entry),
            ),
        )


def key_of(key: str) -> tuple[str | None, bytes]:
    """Return the key of a message, and the `id` of its event as JSON; `key` is the log's.

    A composite one is a JSON array in both, and the empty one of a truncate is None.
    """
    values = orjson.loads(key)
    if not values:
        return None, b"null"
    if len(values) == 1:
        return values[0], key[1:-1].encode()
    return key, key.encode()


def headers_of(database_id: int, entry: Entry) -> tuple[tuple[str, str], ...]:
    """Return the headers of a change, the same each time that it is sent."""
    lsn, then = _of_transaction(entry.commit_lsn, entry.action, entry.xid)
    trace = ("traceparent", traceparent(database_id, entry))
    headers = (lsn, ("idx", str(entry.commit_idx)), *then, trace)
    if entry.action == "insert" and entry.changes is not None:
        previous, _ = key_of(entry.changes.decode())
        if previous is not None:
            headers += (("previous_key", previous),)
    return headers


@lru_cache(maxsize=1024)
def _of_transaction(
    commit_lsn: int, action: str, xid: int | None
) -> tuple[tuple[str, str], tuple[tuple[str, str], ...]]:
    """Return the headers that all such changes of a transaction have: before the index, and
    behind it."""
    then = (("action", action),) if xid is None else (("action", action), ("xid", str(xid)))
    return ("lsn", str(commit_lsn)), then


def traceparent(database_id: int, entry: Entry) -> str:
    """Return the trace of a change: of its transaction, and its position as a span of its own.

    Source: W3C Trace Context, version 00.
    """
    return f"00-{_trace_id(database_id, entry.commit_lsn)}-{entry.position:016x}-01"


@lru_cache(maxsize=1024)
def _trace_id(database_id: int, commit_lsn: int) -> str:
    return blake2b(b"%d.%d" % (database_id, commit_lsn), digest_size=16).hexdigest()


@lru_cache(maxsize=1024)
def milliseconds(commit_at: str) -> int:
    """Return a timestamp of the log in milliseconds since 1970."""
    return int(datetime.fromisoformat(commit_at).timestamp() * 1000)

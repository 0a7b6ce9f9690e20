"""Reading the log: from memory what was just appended, from Postgres what is older."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from triggerkit.log.entry import ALL_PARTITIONS as ALL_PARTITIONS
from triggerkit.log.entry import (
    CHANGES,
    COLUMNS,
    COMMIT_AT,
    PARTITIONS,
    RECORD,
    UNCHANGED,
    Entry,
    Subject,
)
from triggerkit.log.followed import Followed, Moves
from triggerkit.log.tail import Tail, few_of
from triggerkit.state.reading import Reads, rows_of
from triggerkit.timestamps import iso_utc_of

# Named tuples made without their Python-level __new__ cost half.
_make = tuple.__new__

_WIDTH = len(COLUMNS)


def stored(**instead: str) -> str:
    """Return what to select for `entry_of_row`: the columns, or what is given instead of some.

    Little is done for them in Postgres: of a timestamp it is the bytes that stand for it there.
    """
    given = {"commit_at": "timestamptz_send(commit_at)", **instead}
    return ", ".join(given.get(name, name) for name in COLUMNS)


#: All columns of an entry as they are stored, for `entry_of_row`.
STORED = stored()

#: Seconds that a reader waits for as many entries as it can take, while much is about to come.
FILL_S = 0.1

#: Positions of the log that one statement looks through for a consumer's few subjects.
STEP = 50_000

#: Bytes of records that one read gives at most; an entry alone may be larger.
READ_BYTES = 1024 * 1024

# Sizes are known without the values: what is beyond the limit is neither fetched nor sent.
_BOUNDED = f"""
SELECT {STORED} FROM (
    SELECT *, sum(coalesce(octet_length(record), 0) + coalesce(octet_length(changes), 0))
        OVER (ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
    FROM ({{entries}}) e
) e
WHERE coalesce(bytes_before, 0) < %(most_bytes)s ORDER BY position
"""  # noqa: S608 - of constants

#: What of a consumer's few subjects an entry is: others are neither fetched nor sent.
_OF_SUBJECTS = """
      AND (consumer_id = ANY (%(consumers)s) OR coalesce(consumer_id, 0) = 0
        AND (schema_name, table_name) IN (SELECT * FROM unnest(%(schemas)s::text[],
            %(tables)s::text[])))
"""


def _read(of_what: str) -> str:
    return _BOUNDED.format(
        entries=f"""
    SELECT * FROM triggerkit.events
    WHERE database_id = %(database)s AND partition = %(partition)s
      AND position > %(after)s AND position <= %(until)s {of_what}
    ORDER BY position LIMIT %(limit)s
"""  # noqa: S608 - of constants
    )


def _read_all(of_what: str) -> str:
    """Return what reads as many of each partition, by its index, then merged."""
    return _BOUNDED.format(
        entries=f"""
    SELECT e.* FROM generate_series(0, {PARTITIONS - 1}) p CROSS JOIN LATERAL (
        SELECT * FROM triggerkit.events
        WHERE database_id = %(database)s AND partition = p
          AND position > %(after)s AND position <= %(until)s {of_what}
        ORDER BY position LIMIT %(limit)s) e
    ORDER BY position LIMIT %(limit)s
"""  # noqa: S608 - of constants
    )


_READ, _READ_ALL = _read(""), _read_all("")
_READ_SUBJECTS, _READ_ALL_SUBJECTS = _read(_OF_SUBJECTS), _read_all(_OF_SUBJECTS)


async def stored_entry(reads: Reads, database_id: int, position: int) -> Entry | None:
    """Return the entry at a position, from Postgres; None when the log has it not."""
    at = {"database": database_id, "after": position - 1, "until": position, "limit": 1}
    rows = await rows_of(reads, _READ_ALL, {**at, "most_bytes": READ_BYTES})
    return entry_of_row(rows[0]) if rows else None


class LogReader:
    """Reads one database's log and wakes those who follow it.

    What is about `followed` is about all entries where that is not given.
    """

    def __init__(self, pool: AsyncConnectionPool, database_id: int, head: int) -> None:
        """`head` is the last position in the log, 0 when it is empty."""
        self._pool = pool
        self._database_id = database_id
        self._tail = Tail()
        self._everything = Followed(None, head)
        self._followers: dict[Subject, set[Followed]] = {}
        self._filling: set[Followed] = set()
        self._is_growing = False
        self.head = head

    def head_of(self, partition: int) -> int:  # noqa: ARG002
        """Return the position up to which all that `partition` has is known of."""
        return self.head

    def connection(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Return a connection to where the log is, for who looks for something else in it."""
        return self._pool.connection()

    def follow(self, subjects: frozenset[Subject]) -> Followed:
        """Begin to note what comes of `subjects`, until `unfollow`."""
        followed = Followed(subjects, self.head)
        self._enter(followed)
        return followed

    def refollow(self, followed: Followed, subjects: frozenset[Subject]) -> None:
        """Have `followed` be of other subjects from now on."""
        if followed.subjects != subjects:
            self.unfollow(followed)
            followed.change(subjects, self.head)
            self._enter(followed)

    def unfollow(self, followed: Followed) -> None:
        """End what `follow` began."""
        for subject in followed.subjects or ():
            followers = self._followers.get(subject, set())
            followers.discard(followed)
            if not followers:
                self._followers.pop(subject, None)

    def followers(self, subject: Subject) -> int:
        """Return how many follow `subject`."""
        return len(self._followers.get(subject, ()))

    def appended(
        self,
        entries: list[Entry],
        head: int,
        *,
        is_growing: bool = False,
        moves: Moves | None = None,
    ) -> None:
        """Note an append: `entries` if they were kept, and the log's last position after it.

        It `is_growing` when much was read already that is appended next. `moves` are those of all
        entries, where they are known and the entries were not kept.
        """
        before, self.head = self.head, head
        self._is_growing = is_growing
        if len(entries) == head - before:
            self._tell(self._tail.add(entries))
        elif moves is not None:
            self._tail.forget_until(head)
            self._tell(moves)
        else:
            self._tail.forget_until(head)
            for followed in {self._everything}.union(*self._followers.values()):
                followed.moved_everywhere(before + 1, head)
        if not is_growing:
            filling, self._filling = self._filling, set()
            for followed in filling:
                followed.look()

    async def wait(self, partition: int, after: int, followed: Followed | None = None) -> int:
        """Return once `partition` may hold an entry after position `after`: the position up to
        which it holds none."""
        return await (followed or self._everything).wait(partition, after)

    async def fill(
        self, partition: int, after: int, count: int, followed: Followed | None = None
    ) -> bool:
        """Wait for `count` entries of `partition` after position `after`, only while the log grows
        fast and not for long; whether they are in memory. What is older is read at once."""
        if not self._may_fill(partition, after, count, followed):
            return self.holds(partition, after, count, followed)
        waiting = followed or self._everything
        self._filling.add(waiting)
        with suppress(TimeoutError):
            async with asyncio.timeout(FILL_S):
                while self._may_fill(partition, after, count, followed):
                    await waiting.wait_for_a_move(partition)
        return self.holds(partition, after, count, followed)

    def has_nothing_after(
        self, partition: int, after: int, followed: Followed | None = None
    ) -> bool:
        """Return whether `partition` is known to have no entry after position `after`."""
        return (followed or self._everything).has_nothing_after(partition, after)

    def holds(
        self, partition: int, after: int, count: int, followed: Followed | None = None
    ) -> bool:
        """Return whether `count` entries of `partition` after position `after` are in memory."""
        return self._tail.holds(partition, after, count, (followed or self._everything).subjects)

    async def read(
        self, partition: int, after: int, limit: int, followed: Followed | None = None
    ) -> list[Entry]:
        """At most `limit` entries of `partition` (or of all) after position `after`, in order.
        Others than those that are `followed` may be among them."""
        if self._tail.keeps_all(after):
            return self._tail.read(partition, after, limit, (followed or self._everything).subjects)
        few = None if followed is None else few_of(followed.subjects)
        head = self.head
        step = head - after if few is None else STEP
        while after < head:
            until = min(head, after + step)
            if entries := await self.read_stored(partition, after, until, limit, few):
                return entries
            after = until
        return []

    async def read_stored(
        self,
        partition: int,
        after: int,
        until: int,
        limit: int,
        subjects: frozenset[Subject] | None = None,
    ) -> list[Entry]:
        """Entries from Postgres, all or of some subjects: `after` is exclusive, `until` inclusive.

        At most `limit`, and fewer when those would take more than `READ_BYTES`.
        """
        parameters: dict[str, object] = {
            "database": self._database_id,
            "partition": partition,
            "after": after,
            "until": until,
            "limit": limit,
            "most_bytes": READ_BYTES,
        }
        query = _READ_ALL if partition == ALL_PARTITIONS else _READ
        if subjects is not None:
            tables = [subject for subject in subjects if not isinstance(subject, int)]
            parameters["consumers"] = [subject for subject in subjects if isinstance(subject, int)]
            parameters["schemas"] = [schema for schema, _ in tables]
            parameters["tables"] = [table for _, table in tables]
            all_ = partition == ALL_PARTITIONS
            query = _READ_ALL_SUBJECTS if all_ else _READ_SUBJECTS
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query, parameters, binary=True)
            rows = await cursor.fetchall()
        return list(map(entry_of_row, rows))

    def _may_fill(self, partition: int, after: int, count: int, followed: Followed | None) -> bool:
        return (
            self._is_growing
            and self._tail.keeps_all(after)
            and not self.holds(partition, after, count, followed)
        )

    def _tell(self, moves: Moves) -> None:
        for (partition, subject), (first, last) in moves.items():
            self._everything.moved(partition, first, last)
            for followed in self._followers.get(subject, ()):
                followed.moved(partition, first, last)

    def _enter(self, followed: Followed) -> None:
        for subject in followed.subjects or ():
            self._followers.setdefault(subject, set()).add(followed)


def entry_of_row(row: Sequence[Any]) -> Entry:
    """Return the entry of a row of a binary result that begins with `STORED`."""
    values = list(row[:_WIDTH])
    values[COMMIT_AT] = iso_utc_of(values[COMMIT_AT])
    if (record := values[RECORD]) is not None:
        values[RECORD] = record.encode()
    if (changes := values[CHANGES]) is not None:
        values[CHANGES] = changes.encode()
    values[UNCHANGED] = tuple(values[UNCHANGED] or ())
    return _make(Entry, values)

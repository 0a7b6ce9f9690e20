"""Batches that were announced: the items of each come in a request of their own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
from psycopg.rows import class_row

from triggerkit.errors import TriggerkitError
from triggerkit.runs.run import first_run_id_at, new_run_id
from triggerkit.web.api.problems import NotFound

#: How long a batch is remembered, and most that are forgotten when one is made.
KEEP = timedelta(days=30)
MOST_FORGOTTEN = 100

_COLUMNS = "id, run_count, idempotency_key, runs, created_at, sealed_at"

_CREATE = f"""
INSERT INTO triggerkit.trigger_dev_batches (id, run_count, idempotency_key)
VALUES (%s, %s, %s) ON CONFLICT (idempotency_key) DO NOTHING RETURNING {_COLUMNS}
"""  # noqa: S608 - of constants

_OF_KEY = f"SELECT {_COLUMNS} FROM triggerkit.trigger_dev_batches WHERE idempotency_key = %s"  # noqa: S608

_OF_ID = f"SELECT {_COLUMNS} FROM triggerkit.trigger_dev_batches WHERE id = %s"  # noqa: S608

_SEAL = """
UPDATE triggerkit.trigger_dev_batches SET runs = %s, sealed_at = clock_timestamp()
WHERE id = %s AND sealed_at IS NULL
"""

#: Ids sort by time, so the oldest are found at the beginning of the index.
_FORGET = """
DELETE FROM triggerkit.trigger_dev_batches WHERE id = ANY (ARRAY(
    SELECT id FROM triggerkit.trigger_dev_batches WHERE id < %s ORDER BY id LIMIT %s))
"""


class UnknownBatch(NotFound):
    """No batch has this id."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch; `runs` are those of its items, in order, None until they came."""

    id: str
    run_count: int
    idempotency_key: str | None
    runs: list[str] | None
    created_at: datetime
    sealed_at: datetime | None


async def create_batch(
    connection: psycopg.AsyncConnection, run_count: int, key: str | None
) -> Batch:
    """Return a new batch, or the one that `key` belongs to."""
    await connection.execute(_FORGET, [_id_at(time.time() - KEEP.total_seconds()), MOST_FORGOTTEN])
    async with connection.cursor(row_factory=class_row(Batch)) as cursor:
        made = await (await cursor.execute(_CREATE, [_new_id(), run_count, key])).fetchone()
        if made is None:
            made = await (await cursor.execute(_OF_KEY, [key])).fetchone()
    if made is None:
        raise TriggerkitError("the batch of this key has just been forgotten; send it again")
    return made


async def find_batch(connection: psycopg.AsyncConnection, batch_id: str) -> Batch:
    """Return a batch.

    Raises:
        UnknownBatch: there is none.
    """
    async with connection.cursor(row_factory=class_row(Batch)) as cursor:
        found = await (await cursor.execute(_OF_ID, [batch_id])).fetchone()
    if found is None:
        raise UnknownBatch(
            f"no batch has the id {batch_id!r}; one is forgotten after {KEEP.days} days"
        )
    return found


async def seal_batch(
    connection: psycopg.AsyncConnection, batch_id: str, runs: Sequence[str]
) -> None:
    """Note the runs of a batch."""
    await connection.execute(_SEAL, [list(runs), batch_id])


def _new_id() -> str:
    return new_run_id().replace("run_", "batch_")


def _id_at(seconds: float) -> str:
    return first_run_id_at(seconds).replace("run_", "batch_")

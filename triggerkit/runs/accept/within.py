"""Accepting runs in a transaction of the caller's: they are accepted if it commits.

Nothing is pushed before that, and nobody knows of the commit but Postgres: it wakes the keeper.
Runs with a concurrency key are pending until the keeper has seen them: a key that the transaction
locked would be locked to its end, and what it sees of the key may be old.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from triggerkit.errors import ConfigurationError, FieldProblem, InvalidPayload, NotDurable
from triggerkit.runs.accept.foreign import for_asyncpg, library_of
from triggerkit.runs.accept.insert import CHUNK, FIRST, insert_statement
from triggerkit.runs.keys import Placed
from triggerkit.runs.run import NewRun, RunRef
from triggerkit.state.channels import KEEPER
from triggerkit.state.faults import blames_values, is_read_only
from triggerkit.state.turn import Statement

#: Most ids in one notification, which may have 8,000 bytes; what is not named is found later.
_MOST_NAMED = 200

_WAKE = f"SELECT pg_notify('{KEEPER}', %s)"

#: Begins the caller's transaction: a block would commit what it begins itself.
_BEGIN = "SELECT"

_FREE_EXPIRED = """
UPDATE triggerkit.runs r SET idempotency_key = NULL
FROM unnest(%s::text[], %s::text[]) AS k (task, idempotency_key)
WHERE r.task = k.task AND r.idempotency_key = k.idempotency_key
    AND r.idempotency_expires_at < clock_timestamp()
"""

_NO_SCHEMA = (
    "the schema triggerkit is not in the database of connection=: a run can be accepted in a "
    "transaction of the state database only (TRIGGERKIT_STATE_URL, else DATABASE_URL)"
)


def accept_within(connection: psycopg.Connection[Any], runs: Sequence[NewRun]) -> list[RunRef]:
    """Make `runs` in the transaction that `connection` is in; handles as of `Client.accept`.

    A connection in autocommit mode that is in no transaction commits them at once.

    Raises:
        ConfigurationError: it is a connection to another database.
        InvalidPayload: Postgres cannot store a text of it.
    """
    handles: list[RunRef] = []
    for start in range(0, len(runs), CHUNK):
        part = runs[start : start + CHUNK]
        if _is_to_begin(connection):
            connection.execute(_BEGIN)
        with connection.transaction(), connection.cursor(row_factory=_plain) as cursor:
            try:
                cursor.execute(*_freeing(part))
                cursor.execute(*insert_statement(part, pending=True))
                made = [Placed._make(row) for row in cursor.fetchall()]
                first = cursor.execute(FIRST, _repeated(part, made)).fetchall()
                cursor.execute(_WAKE, [_named(made)])
            except psycopg.Error as error:
                raise _as_ours(error) from error
        handles += _handles(part, made, first)
    return handles


async def accept_within_async(
    connection: psycopg.AsyncConnection[Any], runs: Sequence[NewRun]
) -> list[RunRef]:
    """`accept_within` for an asynchronous connection of psycopg or asyncpg."""
    handles: list[RunRef] = []
    accept_part = _accept_by_asyncpg if library_of(connection) == "asyncpg" else _accept_part
    for start in range(0, len(runs), CHUNK):
        handles += await accept_part(connection, runs[start : start + CHUNK])
    return handles


async def _accept_part(
    connection: psycopg.AsyncConnection[Any], part: Sequence[NewRun]
) -> list[RunRef]:
    if _is_to_begin(connection):
        await connection.execute(_BEGIN)
    async with connection.transaction(), connection.cursor(row_factory=_plain) as cursor:
        try:
            await cursor.execute(*_freeing(part))
            await cursor.execute(*insert_statement(part, pending=True))
            made = [Placed._make(row) for row in await cursor.fetchall()]
            await cursor.execute(FIRST, _repeated(part, made))
            first = await cursor.fetchall()
            await cursor.execute(_WAKE, [_named(made)])
        except psycopg.Error as error:
            raise _as_ours(error) from error
    return _handles(part, made, first)


async def _accept_by_asyncpg(connection: Any, part: Sequence[NewRun]) -> list[RunRef]:
    async def rows(query: str, parameters: Any) -> list[tuple[Any, ...]]:
        numbered, values = for_asyncpg(query, parameters)
        return [tuple(row) for row in await connection.fetch(numbered, *values)]

    try:
        async with connection.transaction():
            await rows(*_freeing(part))
            made = [Placed._make(row) for row in await rows(*insert_statement(part, pending=True))]
            first = await rows(FIRST, _repeated(part, made))
            await rows(_WAKE, [_named(made)])
    except Exception as error:
        # The classes of asyncpg are not ours to import; their states are those of psycopg's.
        state = getattr(error, "sqlstate", None)
        if state is None:
            raise
        raise _as_ours(psycopg.errors.lookup(state)(str(error))) from error
    return _handles(part, made, first)


_plain = psycopg.rows.tuple_row


def _is_to_begin(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    return (
        not connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE
    )


def _freeing(runs: Sequence[NewRun]) -> Statement:
    """Lets keys whose time is over be used again."""
    with_key = [run for run in runs if run.idempotency_key is not None]
    return _FREE_EXPIRED, [[r.task for r in with_key], [r.idempotency_key for r in with_key]]


def _repeated(runs: Sequence[NewRun], made: Sequence[Placed]) -> list[list[str | None]]:
    ids = {run.id for run in made}
    repeated = [run for run in runs if run.id not in ids and run.idempotency_key is not None]
    return [[r.task for r in repeated], [r.idempotency_key for r in repeated]]


def _handles(
    runs: Sequence[NewRun], made: Sequence[Placed], first: list[tuple[Any, ...]]
) -> list[RunRef]:
    ids = {run.id for run in made}
    known = {(task, key): run_id for task, key, run_id, _ in first}
    debounced = [run.id for run in made if len(runs) == 1 and run.id != runs[0].id]
    return [
        RunRef(run.id, run.task)
        if run.id in ids
        else RunRef(
            debounced[0] if debounced else known[run.task, run.idempotency_key],
            run.task,
            duplicate=True,
        )
        for run in runs
    ]


def _named(made: Sequence[Placed]) -> str:
    return ",".join(run.id for run in made[:_MOST_NAMED])


def _as_ours(error: psycopg.Error) -> Exception:
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName):
        return ConfigurationError(_NO_SCHEMA)
    if is_read_only(error):
        return NotDurable("the run could not be written: the database of connection= is read-only")
    if blames_values(error):
        return InvalidPayload([FieldProblem((), "contains text that cannot be stored")])
    return error

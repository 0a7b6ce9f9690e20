"""Finding the rows of a task that are out of step with their effects, by one snapshot.

However many there are, only a batch of them is in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple, get_args

import psycopg

from triggerkit.change import Key
from triggerkit.consumers.definition import TableName
from triggerkit.errors import CannotConnect, ConfigurationError, PreflightFailed
from triggerkit.state.faults import is_away, is_read_only
from triggerkit.tasks.task import Task
from triggerkit.tasks.verification import Mismatch, Problem, Verify

#: Mismatches that are looked at together.
BATCH: Final = 1_000

#: What a verification may say of a row; and of that what is wrong.
ANSWERS: Final[tuple[Problem, ...]] = get_args(Problem)
PROBLEMS: Final[tuple[Problem, ...]] = tuple(known for known in ANSWERS if known != "empty")


class Found(NamedTuple):
    """A mismatch, its key as Postgres prints it."""

    key: Key
    problem: Problem


class Verifiable(NamedTuple):
    """A task that says how it is verified, and the one table whose rows it is about."""

    task: Task[Any, Any, Any]
    verify: Verify
    table: TableName
    consumer: str


def verifiable(task: Task[Any, Any, Any]) -> Verifiable:
    """Return the task with what its verification needs.

    Raises:
        ConfigurationError: it does not say how, or does not follow exactly one table.
    """
    if task.verify is None:
        raise ConfigurationError(
            f"task {task.name} does not declare its effects; add @task(verify=...), "
            "see docs/verify.md"
        )
    if task.on is None or len(task.on.tables) != 1:
        raise ConfigurationError(
            f"task {task.name}: verify= compares the rows of one table; on= must name exactly one"
        )
    (table,) = task.on.table_names
    return Verifiable(task, task.verify, table, task.on.name or task.name)


async def mismatches(
    source: psycopg.AsyncConnection, found: Verifiable, key_columns: int
) -> AsyncIterator[list[Found]]:
    """Yield the mismatches of a task, in batches; within `one_snapshot`.

    Raises:
        ConfigurationError: its query or function is wrong, or answers another shape.
        PreflightFailed: a table is missing, or may not be read.
        CannotConnect: the connection broke.
    """
    name = found.task.name
    try:
        if isinstance(found.verify, str):
            batches = _of_query(source, found.verify, key_columns)
        else:
            batches = _of_function(found.verify(source), key_columns)
        async for batch in batches:
            yield batch
    except _Shape as error:
        raise ConfigurationError(f"task {name}: verify= {error}") from None
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege) as error:
        raise PreflightFailed(f"task {name} cannot be verified: {_said(error)}") from error
    except psycopg.Error as error:
        # The snapshot is read-only by us: a query that writes is a mistake of the task's.
        if is_away(error) and not is_read_only(error):
            raise CannotConnect(f"lost the source database: {_said(error)}") from error
        raise ConfigurationError(f"task {name}: verify= failed: {_said(error)}") from error


class _Shape(Exception):
    """A verification's answer does not have the shape it should have; the message says which."""


async def _of_query(
    source: psycopg.AsyncConnection, query: str, key_columns: int
) -> AsyncIterator[list[Found]]:
    # Not the library's own cursor: a key is the text that Postgres prints, as it is in the log.
    await source.execute(
        b"DECLARE verification NO SCROLL CURSOR FOR %b" % query.strip().rstrip(";").encode()
    )
    while True:
        cursor = await source.execute(b"FETCH %d FROM verification" % BATCH)
        result = cursor.pgresult
        assert result is not None
        if result.nfields != key_columns + 1:
            raise _Shape(
                f"returns {result.nfields} columns; it must return the {key_columns} of the "
                "primary key and the problem"
            )
        rows = (
            [result.get_value(row, column) for column in range(result.nfields)]
            for row in range(result.ntuples)
        )
        batch = [_found([_text(v) for v in key], _text(problem)) for *key, problem in rows]
        if not batch:
            return
        yield batch


async def _of_function(
    found: AsyncIterator[Mismatch], key_columns: int
) -> AsyncIterator[list[Found]]:
    batch: list[Found] = []
    async for key, problem in found:
        if isinstance(key, str) or len(key) != key_columns:
            raise _Shape(
                f"yields a key that does not have the {key_columns} values of the primary key"
            )
        batch.append(_found([str(value) for value in key], problem))
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _found(key: list[str], problem: str) -> Found:
    for known in ANSWERS:
        if problem == known:
            return Found(tuple(key), known)
    raise _Shape(f"returns an unknown problem; it must be one of {', '.join(ANSWERS)}")


def _text(value: bytes | None) -> str:
    if value is None:
        raise _Shape("returns a null; keys and problems must not be null")
    return value.decode()


def _said(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error).strip() or type(error).__name__

"""What is asked of Postgres meanwhile, and how many rows of tables that grow it looks at."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import tuple_row

from triggerkit.state.connect import connect_blocking, pinned

#: The tables that grow. The log is in one table for each range of positions.
LARGE = re.compile(
    r"runs|attempts|spans|starts|deliveries|parked|run_rollups|lag_minutes|log_minutes|audit"
    r"|trigger_dev_batches|events(_\d+)*"
)
_OF_LARGE = re.compile(rf"triggerkit\.({LARGE.pattern})\b")
_HAS_PLAN = re.compile(r"\s*\(*(SELECT|WITH|INSERT|UPDATE|DELETE)\b")
_PLACEHOLDER = re.compile(r"%%|%s|%\((\w+)\)s")

#: What a session may have set, by which its statements are planned.
_PLANNER = (
    "enable_seqscan", "enable_sort", "enable_hashjoin", "enable_mergejoin", "enable_bitmapscan",
    "jit", "plan_cache_mode",
)  # fmt: skip
_READ_PLANNER = f"SELECT {', '.join(f'current_setting({name!r})' for name in _PLANNER)}"
_SET_PLANNER = f"SELECT {', '.join(f'set_config({name!r}, %s, true)' for name in _PLANNER)}"

_PREPARED = """
SELECT statement, parameter_types::text[] FROM pg_prepared_statements
ORDER BY prepare_time DESC LIMIT 1
"""

#: Seconds that nothing here takes.
_LONG_S = 20


class Asked(NamedTuple):
    """A statement with its parameters, and what its session had set for the planner."""

    query: str
    given: Any
    planner: tuple[str, ...]


class Looked(NamedTuple):
    """The most rows of a large table that one node of a statement's plan looked at."""

    rows: int
    table: str
    query: str


class _Notes:
    """Notes statements about tables that grow before they run, each once for each shape of its
    parameters."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._known: set[Any] = set()

    def sync(self, execute: Any) -> Any:
        """Return what notes, then executes as `execute` of a `Cursor` does."""

        def noting(cursor: Any, query: Any, params: Any = None, **given: Any) -> Any:
            if (text := self._new(cursor, query, params)) is not None:
                planner = None
                if _is_idle(cursor):
                    own = cursor.connection.cursor(row_factory=tuple_row)
                    planner = execute(own, _READ_PLANNER).fetchone()
                self.asked.append(Asked(text, params, tuple(planner or ())))
            return execute(cursor, query, params, **given)

        return noting

    def coroutine(self, execute: Any, own_execute: Any, first: Any = lambda params: params) -> Any:
        """Return what notes, then does as `execute` of an `AsyncCursor`; `first` returns the
        parameters of its first statement."""

        async def noting(cursor: Any, query: Any, params: Any = None, **given: Any) -> Any:
            await self._note(cursor, query, first(params), own_execute)
            return await execute(cursor, query, params, **given)

        return noting

    def stream(self, stream: Any, own_execute: Any) -> Any:
        """Return what notes, then does as `stream` of an `AsyncCursor`."""

        async def noting(
            cursor: Any, query: Any, params: Any = None, **given: Any
        ) -> AsyncIterator[Any]:
            await self._note(cursor, query, params, own_execute)
            async for row in stream(cursor, query, params, **given):
                yield row

        return noting

    async def _note(self, cursor: Any, query: Any, params: Any, execute: Any) -> None:
        if (text := self._new(cursor, query, params)) is not None:
            planner = None
            if _is_idle(cursor):
                own = cursor.connection.cursor(row_factory=tuple_row)
                planner = await (await execute(own, _READ_PLANNER)).fetchone()
            self.asked.append(Asked(text, params, tuple(planner or ())))

    def _new(self, cursor: Any, query: Any, params: Any) -> str | None:
        """Return the text of a statement that is to be noted."""
        if isinstance(query, sql.Composable):
            query = query.as_string(cursor.connection)
        text = query.decode() if isinstance(query, bytes) else str(query)
        session = cursor.connection.info.get_parameters()
        if session.get("application_name") == "test" or not _is_about_large(text):
            return None
        values = params.values() if isinstance(params, Mapping) else params or ()
        shape = (text, session.get("options"), *(value is None for value in values))
        if shape in self._known:
            return None
        self._known.add(shape)
        return text


def _is_about_large(text: str) -> bool:
    # What ends when its time is over looks at as much as it can until then.
    ends_in_time = "clock_timestamp() > statement_timestamp() +" in text
    return bool(_HAS_PLAN.match(text) and _OF_LARGE.search(text)) and not ends_in_time


def _is_idle(cursor: Any) -> bool:
    """Return whether something can be asked beside."""
    status = cursor.connection.info.transaction_status
    has_failed = status == psycopg.pq.TransactionStatus.INERROR
    return not (cursor.connection.pgconn.pipeline_status or has_failed)


@contextmanager
def noted() -> Iterator[list[Asked]]:
    """Yield what is asked about tables that grow."""
    notes, cursor, cursor_async = _Notes(), psycopg.Cursor, psycopg.AsyncCursor
    own = cursor_async.execute
    many = notes.coroutine(cursor_async.executemany, own, lambda params: next(iter(params), None))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cursor, "execute", notes.sync(cursor.execute))
        patched.setattr(cursor_async, "execute", notes.coroutine(own, own))
        patched.setattr(cursor_async, "executemany", many)
        patched.setattr(cursor_async, "stream", notes.stream(cursor_async.stream, own))
        yield notes.asked


def looked_at(dsn: str, asked: Sequence[Asked]) -> list[Looked]:
    """Return what each statement looks at when it runs again as it was planned, the most first.

    What it does is undone.
    """
    found = []
    with connect_blocking(pinned(dsn, "test")) as connection:
        for one in asked:
            with connection.transaction(force_rollback=True):
                connection.execute(f"SET LOCAL statement_timeout = '{_LONG_S}s'")
                if one.planner:
                    connection.execute(_SET_PLANNER, one.planner)
                for plan in _plans(connection, one):
                    rows, table = max(_rows(plan), default=(0, ""))
                    found.append(Looked(rows, table, one.query))
    return sorted(found, reverse=True)


def _plans(connection: psycopg.Connection[Any], asked: Asked) -> Iterator[dict[str, Any]]:
    """Yield the plan of a statement that ran: a generic one, where its session has such."""
    if "force_generic_plan" not in asked.planner or not asked.given:
        row = connection.execute(
            f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {asked.query}".encode(), asked.given
        ).fetchone()
    else:
        with connection.transaction(force_rollback=True):
            connection.execute(asked.query.encode(), asked.given, prepare=True)
            [(statement, types)] = connection.execute(_PREPARED).fetchall()
        named = f"PREPARE planned ({', '.join(types)}) AS {statement}"
        connection.execute(named.encode(), prepare=False)
        values = sql.SQL(", ").join(map(sql.Literal, _in_order(asked)))
        row = connection.execute(
            sql.SQL("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE planned ({})").format(
                values
            )
        ).fetchone()
        connection.execute("DEALLOCATE planned")
    assert row is not None
    yield row[0][0]["Plan"]


def _in_order(asked: Asked) -> list[Any]:
    """Return the parameters as the server counts them: one named twice is one."""
    if not isinstance(asked.given, Mapping):
        return list(asked.given)
    names = [found[1] for found in _PLACEHOLDER.finditer(asked.query) if found[0] != "%%"]
    return [asked.given[name] for name in dict.fromkeys(names)]


def _rows(node: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """Yield how many rows of which large table a node and those below it looked at."""
    table = node.get("Relation Name", "")
    if LARGE.fullmatch(table):
        removed = sum(node.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck"))
        yield int((node["Actual Rows"] + removed) * node["Actual Loops"]), table
    for child in node.get("Plans", []):
        yield from _rows(child)

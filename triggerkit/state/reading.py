"""Read by one statement what several readers ask for at the same moment.

A reader asks by `rows_of`, of a connection or of a `Together`. Readers that `asyncio.gather` runs
on one `Together` each ask their own small query, and those of one moment are sent as the parts of
one statement: a page costs as many statements as its longest chain of questions has links, and what
it shows beside each other was read at one moment.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar, overload

import psycopg

T = TypeVar("T")

Row = tuple[Any, ...]

#: The parameters of a query, by place or by name.
Given = Sequence[Any] | Mapping[str, Any]

#: What stands for a parameter, and a percent sign, which is none.
_PLACEHOLDER = re.compile(r"%%|%s|%\((\w+)\)s")


#: Turns of the event loop in which one that was answered, or begins readers of its own, asks.
TURNS = 5


@dataclass(slots=True, eq=False)
class _Asked:
    query: str
    given: Given
    #: Whether the columns' names are wanted.
    is_named: bool
    answer: asyncio.Future[tuple[list[str], list[Row]]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Together:
    """A connection whose readers, as many as ask at the same moment, are answered by one statement.

    Each part answers as if it were asked alone, with Python's values of Postgres's types; a part
    that fails fails the others of its moment, too.
    """

    def __init__(self, connection: psycopg.AsyncConnection) -> None:
        self._connection = connection
        self._asked: list[_Asked] = []
        self._answering: asyncio.Task[None] | None = None
        self._is_over = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._is_over = True
        if self._answering is not None and not self._answering.done():
            self._answering.cancel()
            await asyncio.wait([self._answering])

    @property
    def info(self) -> psycopg.ConnectionInfo:
        """What is known of the connection."""
        return self._connection.info

    async def ask(
        self, query: str, given: Given, *, is_named: bool
    ) -> tuple[Sequence[str], list[Row]]:
        """Return the names of the columns, where they are wanted and there is a row, and the
        rows."""
        if self._is_over:
            raise RuntimeError("a reader goes on after the connection was given back")
        asked = _Asked(query, given, is_named)
        self._asked.append(asked)
        if self._answering is None or self._answering.done():
            self._answering = asyncio.create_task(self._answer())
        return await asked.answer

    async def _answer(self) -> None:
        while self._asked:
            await self._all_asked()
            moment, self._asked = self._asked, []
            try:
                found = await self._read(moment)
            except BaseException as error:
                for asked in (*moment, *self._asked):
                    if not asked.answer.done():
                        _fail(asked.answer, error)
                if not isinstance(error, Exception):
                    raise
                return
            for asked, answer in zip(moment, found, strict=True):
                if not asked.answer.done():
                    asked.answer.set_result(answer)
            # Those that were answered go on, and may ask for more.
            await asyncio.sleep(0)

    async def _all_asked(self) -> None:
        """Return once no other reader asks any more before it is answered."""
        count = -1
        while count != len(self._asked):
            count = len(self._asked)
            for _ in range(TURNS):
                await asyncio.sleep(0)

    async def _read(self, moment: Sequence[_Asked]) -> list[tuple[list[str], list[Row]]]:
        if len(moment) == 1:
            [alone] = moment
            cursor = await self._connection.execute(alone.query, alone.given or None)
            return [(_names(cursor), await cursor.fetchall())]
        query, given = _joined(moment)
        # Rows within a row keep their types in the binary format alone.
        async with self._connection.cursor(binary=True) as cursor:
            await cursor.execute(query, given)
            row = await cursor.fetchone()
        assert row is not None
        return [(names or [], rows) for rows, names in zip(row[::2], row[1::2], strict=True)]


#: What is read of.
Reads = psycopg.AsyncConnection | Together


@asynccontextmanager
async def together(reads: Reads) -> AsyncIterator[Together]:
    """Yield what readers of one moment ask together: of a connection, or of what is one already."""
    if isinstance(reads, Together):
        yield reads
        return
    async with Together(reads) as own:
        yield own


@overload
async def rows_of(reads: Reads, query: str, given: Given = ()) -> list[Row]: ...


@overload
async def rows_of(
    reads: Reads, query: str, given: Given = (), *, into: Callable[..., T]
) -> list[T]: ...


async def rows_of(
    reads: Reads, query: str, given: Given = (), *, into: Callable[..., Any] | None = None
) -> list[Any]:
    """Return the rows of a query as tuples, or what `into` makes of each, given its columns by
    name."""
    if isinstance(reads, Together):
        names, rows = await reads.ask(query, given, is_named=into is not None)
    else:
        cursor = await reads.execute(query, given or None)
        names, rows = _names(cursor), await cursor.fetchall()
    if into is None:
        return rows
    return [into(**dict(zip(names, row, strict=True))) for row in rows]


def _joined(moment: Sequence[_Asked]) -> tuple[str, dict[str, Any]]:
    """Return one statement whose row has, of each part, its rows and its columns' names."""
    given: dict[str, Any] = {}
    parts, columns = [], []
    for number, asked in enumerate(moment):
        query = _own_names(asked, number, given)
        name = f"_part{number}"
        if not asked.is_named:
            part = f"SELECT {name} FROM ({query}\n) {name}"  # noqa: S608 - of constants
            columns.append(f"ARRAY({part}), NULL")
            continue
        parts.append(f"{name} AS MATERIALIZED ({query}\n)")
        keys = f"SELECT ARRAY(SELECT json_object_keys(to_json({name}))) FROM {name} LIMIT 1"  # noqa: S608
        columns.append(f"ARRAY(SELECT {name} FROM {name}), ({keys})")  # noqa: S608
    begin = f"WITH {', '.join(parts)} " if parts else ""
    return f"{begin}SELECT {', '.join(columns)}", given


def _own_names(asked: _Asked, number: int, given: dict[str, Any]) -> str:
    """Return a query whose parameters have names of their own, which are put into `given`."""
    if not asked.given:
        return asked.query.replace("%", "%%")
    values = asked.given
    places = iter(range(len(values)))

    def named(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return found[0]
        value = values[found[1]] if isinstance(values, Mapping) else values[place := next(places)]
        name = f"p{number}_{found[1] if isinstance(values, Mapping) else place}"
        given[name] = value
        return f"%({name})s"

    return _PLACEHOLDER.sub(named, asked.query)


def _names(cursor: psycopg.AsyncCursor[Row]) -> list[str]:
    return [column.name for column in cursor.description or ()]


def _fail(answer: asyncio.Future[Any], error: BaseException) -> None:
    if isinstance(error, Exception):
        answer.set_exception(error)
        # Whoever asked may be gone.
        answer.exception()
    else:
        answer.cancel()

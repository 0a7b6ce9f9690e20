"""Holds a definition against the source's tables: what it names must be there, and fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from triggerkit.consumers.declare.followed import FollowedColumn, apart, read_followed
from triggerkit.consumers.definition import BEGINNING, END, ConsumerDefinition, TableName
from triggerkit.consumers.filters.comparison import number
from triggerkit.consumers.filters.filter import ORDERING, Filter, Scalar
from triggerkit.consumers.filters.functions import foreign
from triggerkit.errors import ConfigurationError
from triggerkit.replication.publication.columns import published_columns
from triggerkit.replication.publication.tables import read_tables
from triggerkit.replication.slot.replication_slot import PUBLICATION
from triggerkit.replication.unknown_table import no_column, no_table
from triggerkit.replication.wal_marker import OWN_SCHEMA
from triggerkit.values import decoder_for


@dataclass(slots=True)
class Resolved:
    """A definition whose values are written as messages have them, and what is to be warned of."""

    definition: ConsumerDefinition
    warnings: list[str] = field(default_factory=list)


async def resolve(
    source: psycopg.AsyncConnection,
    definition: ConsumerDefinition,
    where: str,
    publication: str = PUBLICATION,
) -> Resolved:
    """Check `definition` against the source; `where` is its place, for the messages.

    It is to be followed by way of `publication`.

    Raises:
        ConfigurationError: it names a table or column that is not there, or a value does not fit
            its column's type. The message lists all problems, each with its field.
    """
    checker = _Checker(source, definition, where, publication)
    resolved = await checker.check()
    if checker.problems:
        raise ConfigurationError("\n".join(checker.problems))
    return resolved


class _Checker:
    def __init__(
        self,
        source: psycopg.AsyncConnection,
        definition: ConsumerDefinition,
        where: str,
        publication: str,
    ) -> None:
        self._source = source
        self._definition = definition
        self._where = where
        self._publication = publication
        self._published: dict[tuple[str, str], dict[str, int]] = {}
        self._tables: dict[TableName, dict[str, FollowedColumn]] = {}
        self.problems: list[str] = []

    async def check(self) -> Resolved:
        definition = self._definition
        self._published = await published_columns(
            self._source, self._publication, definition.table_names
        )
        followed = await read_followed(self._source, definition.table_names)
        for index, table in enumerate(definition.table_names):
            await self._read_table(table, followed.get(table), f"tables.{index}")
        resolved = Resolved(definition)
        self._functions()
        if definition.is_direct and definition.task is None:
            self._problem("task", "via='direct' needs the task whose runs are to be made")
        self._sort_column(resolved)
        self._named_columns("when_changed", definition.when_changed or ())
        self._named_columns("group_by", definition.group_by or ())
        for problem in apart(self._tables, definition.group_by or ()):
            self._problem("group_by", problem)
        await self._old_values(resolved)
        filters = [await self._filter(i, f) for i, f in enumerate(definition.filters)]
        start = await self._start()
        resolved.definition = definition.model_copy(
            update={"filters": tuple(filters), "start": start}
        )
        return resolved

    async def _read_table(
        self, table: TableName, columns: dict[str, FollowedColumn] | None, path: str
    ) -> None:
        if table.schema == OWN_SCHEMA:
            self._problem(
                path,
                f"{table} is of our own state, which nobody can follow: a message would make the "
                "next; name a table of the application",
            )
            return
        if table.schema.startswith("pg_") or table.schema == "information_schema":
            self._problem(
                path,
                f"{table} is of Postgres' own catalog, whose changes it does not publish; name a "
                "table of the application",
            )
            return
        if columns:
            self._tables[table] = columns
        else:
            self._problem(path, await no_table(self._source, table))

    def _functions(self) -> None:
        for path in ("filter", "transform"):
            reference: str | None = getattr(self._definition, path)
            problem = None if reference is None else foreign(reference)
            if problem is not None:
                self._problem(path, problem)

    def _sort_column(self, resolved: Resolved) -> None:
        name = self._definition.sort_by
        if name is None:
            return
        self._named_columns("sort_by", [name])
        for table, columns in self._tables.items():
            column = columns.get(name)
            if column is not None and not column.is_indexed:
                statement = sql.SQL("CREATE INDEX CONCURRENTLY ON {} ({})").format(
                    sql.Identifier(*table), sql.Identifier(name)
                )
                resolved.warnings.append(
                    f"{self._where} sort_by: no index of {table} begins with {name!r}, so each "
                    f"chunk of a backfill sorts the table; run: {statement.as_string(None)};"
                )

    async def _old_values(self, resolved: Resolved) -> None:
        if self._definition.when_changed is None:
            return
        for table in (await read_tables(self._source, self._tables, self._publication)).values():
            if table.partial:
                remedy = f"run: {table.set_full}"
                if table.set_full is None:
                    remedy = "with a virtual generated column Postgres allows none of them"
                resolved.warnings.append(
                    f"{self._where} when_changed: the WAL does not carry old values of "
                    f"{', '.join(table.partial)}, so every update counts as a change of these "
                    f"columns; {remedy}"
                )

    def _named_columns(self, path: str, names: Sequence[str]) -> None:
        for name in names:
            for table in self._tables:
                self._column(path, table, name)

    def _column(self, path: str, table: TableName, name: str) -> FollowedColumn | None:
        column = self._tables[table].get(name)
        if column is None:
            self._problem(path, no_column(table, name, self._tables[table]))
        elif name not in self._published[table]:
            known = ", ".join(self._published[table])
            self._problem(
                path,
                f"column {name!r} of {table} is not published, so that messages do not have it: it "
                f"is generated, or left out by the publication's column list; they have {known}",
            )
            return None
        return column

    async def _filter(self, index: int, filter_: Filter) -> Filter:
        """Return the filter with its value as messages have it; it is the same in all tables."""
        path, problems = f"filters.{index}", len(self.problems)
        found: list[tuple[TableName, FollowedColumn, Filter]] = []
        for table in self._tables:
            column = self._column(f"{path}.column", table, filter_.column)
            if column is not None and filter_.operator not in ("is_null", "not_null"):
                found.append((table, column, await self._compared(path, table, column, filter_)))
        if not found or len(self.problems) > problems:
            return filter_
        first_table, first_column, first = found[0]
        for table, column, other in found[1:]:
            if not first.compares_as(other):
                self._problem(
                    f"{path}.value",
                    f"{filter_.value!r} is not the same in {first_table}, where column "
                    f"{filter_.column!r} is {first_column.type_name}, and in {table}, where it is "
                    f"{column.type_name}; make a consumer for each table",
                )
        return first

    async def _compared(
        self, path: str, table: TableName, column: FollowedColumn, filter_: Filter
    ) -> Filter:
        """Return the filter as the column of `table` compares its value."""
        comparison = column.comparison
        if comparison is None:
            self._problem(
                f"{path}.column",
                f"values of type {column.type_name} of {table} cannot be compared here as Postgres "
                "does; use a filter function",
            )
            return filter_
        if filter_.operator in ORDERING and not comparison.is_ordered:
            self._problem(
                f"{path}.operator",
                f"{filter_.operator!r} does not order values of type {column.type_name} of {table} "
                "as Postgres does; use ==, !=, in, not_in, or a filter function",
            )
            return filter_
        value = filter_.value
        if isinstance(value, tuple):
            cast: Scalar | tuple[Scalar, ...] = tuple(
                [
                    await self._cast(f"{path}.value.{i}", table, column, v)
                    for i, v in enumerate(value)
                ]
            )
        else:
            cast = await self._cast(f"{path}.value", table, column, value)
        is_number = comparison.key is number
        compared = {"value": cast, "is_number": is_number, "type": column.compared_type}
        return filter_.model_copy(update=compared)

    async def _start(self) -> str | int | float:
        start, name = self._definition.start, self._definition.sort_by
        if start in (BEGINNING, END) or name is None:
            return start
        for table, columns in self._tables.items():
            if name in columns:
                await self._cast("start", table, columns[name], start)
        return start

    async def _cast(
        self, path: str, table: TableName, column: FollowedColumn, value: Scalar
    ) -> Scalar:
        """`value` in the form that messages have, as Postgres reads it."""
        text = str(value).lower() if isinstance(value, bool) else str(value)
        query = sql.SQL("SELECT CAST({} AS {})").format(
            sql.Literal(text), sql.SQL(column.cast_type)
        )
        try:
            async with self._source.transaction():
                cursor = await self._source.execute(query)
        except psycopg.DataError:
            self._problem(
                path,
                f"{value!r} is not a value of column {column.name!r} of {table}, whose type is "
                f"{column.type_name}",
            )
            return value
        result = cursor.pgresult
        raw = None if result is None else result.get_value(0, 0)
        if result is None or raw is None:
            return value
        decoded = decoder_for(result.ftype(0))(raw)
        return decoded if isinstance(decoded, str | int | float | bool) else raw.decode()

    def _problem(self, path: str, problem: str) -> None:
        self.problems.append(f"{self._where} {path}: {problem}")

"""What `apply` makes beside the consumers: schema, publication, slot, endpoints and topics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import psycopg

from triggerkit.consumers.declare.declaration import Declarations
from triggerkit.consumers.declare.endpoint_steps import EndpointSteps
from triggerkit.consumers.source.database import CaptureNames, Database
from triggerkit.replication.slot.replication_slot import identify
from triggerkit.replication.slot.slot_state import read_slot
from triggerkit.state.migrate import applied_version, migrations

Verb = Literal["create", "change", "delete", "replace", "upgrade"]
Kind = Literal["schema", "publication", "slot", "endpoint", "topic"]

_PUBLICATION = "SELECT puballtables FROM pg_publication WHERE pubname = %s"

_PUBLISHED = "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s"

_PAST: Final = {
    "create": "created",
    "change": "changed",
    "delete": "deleted",
    "replace": "replaced",
    "upgrade": "upgraded",
}


@dataclass(frozen=True, slots=True)
class Preparation:
    """One thing that is made, changed or deleted. `loses` says what cannot be had back."""

    verb: Verb
    kind: Kind
    name: str
    details: tuple[str, ...] = ()
    loses: str | None = None

    @property
    def done(self) -> str:
        """Return what was done, in a line."""
        details = f": {', '.join(self.details)}" if self.details else ""
        return f"{_PAST[self.verb]} {self.kind} {self.name}{details}"

    def __str__(self) -> str:
        lines = [f"{self.verb} {self.kind} {self.name}", *(f"    {d}" for d in self.details)]
        if self.loses:
            lines.append(f"    loses: {self.loses}")
        return "\n".join(lines)


async def prepare(
    source: psycopg.AsyncConnection,
    state: psycopg.AsyncConnection,
    database: Database | None,
    declarations: Declarations,
    names: CaptureNames,
    endpoints: EndpointSteps,
    also: Sequence[tuple[str, str]] = (),
) -> list[Preparation]:
    """Return what `apply` will make before the consumers, in its order; change nothing.

    The tables `also` are published beside those of the consumers.
    """
    publication, slot = names.for_database(await identify(source))
    if database is not None:
        publication = names.publication or database.publication_name
        slot = database.slot_name
    tables = [t for consumer in declarations.consumers for t in consumer.definition.table_names]
    has_state = await applied_version(state) > 0
    async with names.slots(source) as slots:
        of_slot = [found async for found in _of_slot(slots, slot, database)]
    return [
        *[found async for found in _of_schema(state)],
        *[found async for found in _of_publication(source, publication, [*tables, *also])],
        *of_slot,
        *(await of_endpoints(endpoints, declarations, has_state=has_state)),
    ]


async def of_endpoints(
    endpoints: EndpointSteps, declarations: Declarations, *, has_state: bool = True
) -> list[Preparation]:
    """Return the endpoints that will be made, changed or deleted.

    Raises:
        InvalidEndpoint: one cannot be used.
        ConfigurationError: a consumer names an endpoint that does not exist.
    """
    if not has_state:
        wanted = [one.name for one in declarations.endpoints]
        wanted += [one.name for one in declarations.consumers if one.path is not None]
        return [Preparation("create", "endpoint", name) for name in wanted]
    await endpoints.check(declarations.endpoints, declarations.consumers)
    return [
        Preparation(verb, "endpoint", name, details)
        for verb, name, details in await endpoints.changes(
            declarations.endpoints, declarations.consumers
        )
    ]


async def _of_schema(state: psycopg.AsyncConnection) -> AsyncIterator[Preparation]:
    version = await applied_version(state)
    missing = [m for m in migrations() if m.version > version]
    if missing and not version:
        yield Preparation("create", "schema", "triggerkit")
    elif missing:
        details = tuple(f"migration {m.version}: {m.name}" for m in missing)
        yield Preparation("upgrade", "schema", "triggerkit", details)


async def _of_publication(
    source: psycopg.AsyncConnection, name: str, tables: Iterable[tuple[str, str]]
) -> AsyncIterator[Preparation]:
    wanted = list(dict.fromkeys(map(tuple, tables)))
    row = await (await source.execute(_PUBLICATION, [name])).fetchone()
    if row is None:
        yield Preparation("create", "publication", name, _added(wanted))
    elif not row[0]:
        published = set(await (await source.execute(_PUBLISHED, [name])).fetchall())
        missing = [table for table in wanted if table not in published]
        if missing:
            yield Preparation("change", "publication", name, _added(missing))


def _added(tables: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(f"add {'.'.join(table)}" for table in tables)


async def _of_slot(
    source: psycopg.AsyncConnection, name: str, database: Database | None
) -> AsyncIterator[Preparation]:
    slot = await read_slot(source, name)
    was_made = database is not None and database.slot_epoch > 0
    if slot is None:
        gap = ("changes since the one before are missing: a gap of each consumer",)
        yield Preparation("create", "slot", name, gap if was_made else ())
    elif slot.lost_by is not None:
        loses = f"nothing more than is lost already ({slot.lost_by}); the gap is recorded"
        yield Preparation("replace", "slot", name, loses=loses)

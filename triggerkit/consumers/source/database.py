"""Source databases as the state knows them: slot, publication, epoch.

A database is the one of an OID on the server of a system identifier. Its name is a label: it may be
renamed, and another server may have one of the same name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Self

import psycopg

from triggerkit.errors import PreflightFailed
from triggerkit.replication.slot.replication_slot import (
    PUBLICATION,
    SourceIdentity,
    identify,
    slot_name_for,
)
from triggerkit.settings import Settings
from triggerkit.state.connect import connect


@dataclass(frozen=True, slots=True)
class Database:
    """A source database as the state knows it."""

    id: int
    name: str
    slot_name: str
    publication_name: str
    slot_epoch: int
    system_identifier: str


@dataclass(frozen=True, slots=True)
class CaptureNames:
    """The names that were given for publication and slot, None where ours are wanted; and the
    standby that has the slot, None where the source's server has it."""

    publication: str | None = None
    slot: str | None = None
    standby_dsn: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return those of the settings."""
        standby = settings.slot_dsn if settings.triggerkit_standby_url is not None else None
        return cls(settings.triggerkit_publication, settings.triggerkit_slot, standby)

    @asynccontextmanager
    async def slots(
        self, source: psycopg.AsyncConnection
    ) -> AsyncIterator[psycopg.AsyncConnection]:
        """Give a connection to the server that has the slot: `source`, or one to the standby.

        Raises:
            CannotConnect: the standby does not answer.
        """
        if self.standby_dsn is None:
            yield source
            return
        async with await connect(self.standby_dsn, "triggerkit slot") as standby:
            yield standby

    def for_database(self, identity: SourceIdentity) -> tuple[str, str]:
        """Return the publication's and the slot's name for a database that is not known yet."""
        own = slot_name_for(identity.database, identity.oid)
        return self.publication or PUBLICATION, self.slot or own


#: None are given.
OWN_NAMES: Final = CaptureNames()


_FIELDS = "id, name, slot_name, publication_name, slot_epoch, system_identifier"

#: Rows that were made before the OID was kept are known by their name on the same server.
_FIND = f"""
SELECT {_FIELDS} FROM triggerkit.databases
WHERE system_identifier = %(system)s
  AND (database_oid = %(oid)s OR database_oid IS NULL AND name = %(name)s)
ORDER BY database_oid NULLS LAST LIMIT 1
"""  # noqa: S608 - of constants

_INSERT = f"""
INSERT INTO triggerkit.databases
    (name, slot_name, publication_name, system_identifier, timeline, database_oid, hostname)
VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING {_FIELDS}
"""  # noqa: S608 - of constants

#: Takes the place of a database whose consumers are these.
_PREDECESSOR = f"""
SELECT {_FIELDS} FROM triggerkit.databases d
WHERE name = %s AND EXISTS (
    SELECT FROM triggerkit.consumers c WHERE c.database_id = d.id AND c.name = ANY (%s))
"""  # noqa: S608 - of constants

_SEEN = """
UPDATE triggerkit.databases d SET database_oid = %(oid)s, publication_name = %(publication)s,
    hostname = %(host)s,
    name = CASE WHEN EXISTS (
        SELECT FROM triggerkit.databases o WHERE o.name = %(name)s AND o.id <> d.id)
        THEN d.name ELSE %(name)s END
WHERE id = %(id)s
"""


async def find_database(
    source: psycopg.AsyncConnection, state: psycopg.AsyncConnection
) -> Database | None:
    """Return the state's row for the database behind `source`; None before its slot was made."""
    database = await known_database(source, state)
    return None if database is None or database.slot_epoch == 0 else database


async def known_database(
    source: psycopg.AsyncConnection,
    state: psycopg.AsyncConnection,
    consumers: Sequence[str] = (),
) -> Database | None:
    """Return the state's row for the database behind `source`, None where it has none.

    It is that of another one of this name, whose place it takes, if that has some of `consumers`.
    """
    cursor = await state.execute("SELECT to_regclass('triggerkit.databases') IS NOT NULL")
    if await cursor.fetchone() == (False,):
        return None
    identity = await identify(source)
    found = await _find(state, identity)
    return found or await _predecessor(state, identity, consumers)


async def ensure_database(
    source: psycopg.AsyncConnection,
    state: psycopg.AsyncConnection,
    names: CaptureNames = OWN_NAMES,
    consumers: Sequence[str] = (),
    *,
    may_lose: bool = False,
) -> tuple[Database, SourceIdentity]:
    """Return the state's row for the database behind `source`, made when it is missing.

    Raises:
        PreflightFailed: `consumers` were made on another server's database of this name, and it is
            not said by `may_lose` that this one takes its place; or it has another slot than
            `names` say.
    """
    identity = await identify(source)
    found = await _find(state, identity)
    if found is None:
        found = await _predecessor(state, identity, consumers)
        if found is not None and not may_lose:
            raise PreflightFailed(
                f"DATABASE_URL leads to another database {identity.database} (OID {identity.oid} "
                f"on the server {identity.system_identifier}) than its consumers were made on (the "
                f"server {found.system_identifier}); correct it, or, if this one takes the other's "
                "place, run `triggerkit apply --yes`, which records a gap"
            )
    if found is None:
        return await _insert(state, identity, names, host_of(source)), identity
    if names.slot not in (None, found.slot_name):
        raise PreflightFailed(
            f"{found.name} is captured by the slot {found.slot_name}, and TRIGGERKIT_SLOT is "
            f"{names.slot}: unset it, since what the other slot holds would be lost"
        )
    if found.system_identifier != identity.system_identifier:
        # What is remembered by OIDs is of the other server's.
        for table in ("published", "relations", "sightings"):
            await state.execute(
                f"DELETE FROM triggerkit.{table} WHERE database_id = %s",  # noqa: S608
                [found.id],
            )
    publication = names.publication or found.publication_name
    seen = {
        "oid": identity.oid,
        "publication": publication,
        "name": identity.database,
        "host": host_of(source),
    }
    if found.system_identifier == identity.system_identifier:
        await state.execute(_SEEN, {**seen, "id": found.id})
    cursor = await state.execute(
        f"SELECT {_FIELDS} FROM triggerkit.databases WHERE id = %s",  # noqa: S608
        [found.id],
    )
    row = await cursor.fetchone()
    assert row is not None
    return Database(*row), identity


def host_of(source: psycopg.AsyncConnection) -> str:
    """Return the host that a connection leads to; a socket of this machine is localhost."""
    host = source.info.host
    return "localhost" if not host or host.startswith(("/", "@")) else host


async def _find(state: psycopg.AsyncConnection, identity: SourceIdentity) -> Database | None:
    parameters = {
        "system": identity.system_identifier,
        "oid": identity.oid,
        "name": identity.database,
    }
    cursor = await state.execute(_FIND, parameters)
    row = await cursor.fetchone()
    return None if row is None else Database(*row)


async def _predecessor(
    state: psycopg.AsyncConnection, identity: SourceIdentity, consumers: Sequence[str]
) -> Database | None:
    cursor = await state.execute(_PREDECESSOR, [identity.database, list(consumers)])
    row = await cursor.fetchone()
    return None if row is None else Database(*row)


async def _insert(
    state: psycopg.AsyncConnection, identity: SourceIdentity, names: CaptureNames, host: str
) -> Database:
    cursor = await state.execute("SELECT name FROM triggerkit.databases")
    taken = {name for (name,) in await cursor.fetchall()}
    label, number = identity.database, 2
    while label in taken:
        label, number = f"{identity.database}-{number}", number + 1
    publication, slot = names.for_database(identity)
    cursor = await state.execute(
        _INSERT,
        [
            label,
            slot,
            publication,
            identity.system_identifier,
            identity.timeline,
            identity.oid,
            host,
        ],
    )
    row = await cursor.fetchone()
    assert row is not None
    return Database(*row)

"""The health of each captured database: its slot, its publication and tables, and its log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.consumers.health import Problem, Severity
from triggerkit.consumers.retention import WARN_SHARE, Outlook, Policy, outlook
from triggerkit.replication.publication.tables import SourceTable
from triggerkit.replication.slot.replication_slot import SourceIdentity, identify
from triggerkit.replication.slot.slot_state import SlotState, read_slot
from triggerkit.state.reading import Reads, rows_of
from triggerkit.supervisor.checks.check import Check
from triggerkit.supervisor.checks.publication import check_publication
from triggerkit.supervisor.checks.slot import found_slot
from triggerkit.supervisor.checks.tables import check_columns, check_tables

#: Bytes of WAL that a slot may keep without a word, where the server has no limit of its own.
LAG_BYTES = 1_000_000_000

#: Seconds since the last heartbeat came back after which the stream is taken for stuck.
HEARTBEAT_S = 90.0

#: The share of `max_slot_wal_keep_size` that is left when the slot is said to be near its loss.
SAFE_SHARE = 0.2

#: The first version whose slots can be taken over by a standby.
FAILOVER_SLOTS = 170000

_DATABASES = """
SELECT id, name, database_oid, slot_name, publication_name, system_identifier, timeline,
    slot_epoch,
    next_position, retained_from, heartbeat_at,
    extract(epoch FROM clock_timestamp() - heartbeat_at)::float AS heartbeat_age_s
FROM triggerkit.databases ORDER BY name
"""

_DEFINITIONS = "SELECT name, definition FROM triggerkit.consumers WHERE database_id = %s"

#: Columns whose large values are stored apart, and left out of updates that do not change them.
_LARGE_COLUMNS = """
SELECT attrelid::bigint, array_agg(attname::text ORDER BY attnum) FROM pg_attribute
WHERE attrelid = ANY (%s) AND attnum > 0 AND NOT attisdropped AND attstorage IN ('x', 'e')
GROUP BY attrelid
"""


@dataclass(frozen=True, slots=True)
class _Database:
    id: int
    name: str
    database_oid: int | None
    slot_name: str
    publication_name: str
    system_identifier: str | None
    timeline: int | None
    slot_epoch: int
    next_position: int
    retained_from: int
    heartbeat_at: datetime | None
    heartbeat_age_s: float | None


@dataclass(frozen=True, slots=True)
class CapturedDatabase:
    """A captured database. What only the source tells is None where it cannot be asked."""

    name: str
    slot_name: str
    slot_active: bool | None
    slot_lag_bytes: int | None
    heartbeat_at: datetime | None
    lag_seconds: float | None
    log_first_position: int
    log_last_position: int
    log_bytes: int
    log_max_bytes: int
    problems: tuple[Problem, ...]


async def database_health(
    state: Reads, source: Reads | None, policy: Policy, slots: Reads | None = None
) -> tuple[list[CapturedDatabase], list[Outlook]]:
    """Return all captured databases by name, and how near each one's log is to its limit.

    Only the one behind `source` is looked at itself; without `source` none is. `slots` is the
    standby that has the slot, where there is one.
    """
    databases, identity = await asyncio.gather(
        rows_of(state, _DATABASES, into=_Database), _identity(source)
    )
    asked = None if identity is None else _behind(identity, databases)
    found = await asyncio.gather(
        *(
            _looked_at(
                state, source, slots, database, identity if database == asked else None, policy
            )
            for database in databases
        )
    )
    return [health for health, _ in found], [ahead for _, ahead in found]


async def _identity(source: Reads | None) -> SourceIdentity | None:
    return None if source is None else await identify(source)


async def _looked_at(
    state: Reads,
    source: Reads | None,
    slots: Reads | None,
    database: _Database,
    identity: SourceIdentity | None,
    policy: Policy,
) -> tuple[CapturedDatabase, Outlook]:
    """Return the health of one database, by the source too where that has this `identity`."""
    slot = None
    of_source: list[Problem] = []
    if source is None or identity is None:
        ahead = await outlook(state, database.id, policy)
    else:
        ahead, slot, of_tables = await asyncio.gather(
            outlook(state, database.id, policy),
            read_slot(slots or source, database.slot_name),
            _of_tables(state, source, database),
        )
        of_slot = _of_slot(database, slot, source.info.server_version)
        of_source = [*_of_server(database, identity), *of_slot, *of_tables]
    problems = [*_of_log(ahead), *of_source]
    return _health(database, slot, ahead, problems, can_ask_source=source is not None), ahead


def _behind(identity: SourceIdentity, databases: Sequence[_Database]) -> _Database | None:
    """Return the database that is asked: of this server and OID, or else of this name."""
    same = [d for d in databases if d.system_identifier == identity.system_identifier]
    for database in same:
        if database.database_oid == identity.oid:
            return database
    named = [d for d in databases if d.name == identity.database]
    return next((d for d in named if d.database_oid is None or d not in same), None)


def _health(
    database: _Database,
    slot: SlotState | None,
    ahead: Outlook,
    problems: Sequence[Problem],
    *,
    can_ask_source: bool,
) -> CapturedDatabase:
    return CapturedDatabase(
        name=database.name,
        slot_name=database.slot_name,
        slot_active=(slot is not None and slot.active_pid is not None) if can_ask_source else None,
        slot_lag_bytes=None if slot is None else slot.lag_bytes,
        heartbeat_at=database.heartbeat_at,
        lag_seconds=database.heartbeat_age_s,
        log_first_position=database.retained_from,
        log_last_position=database.next_position - 1,
        log_bytes=ahead.size_bytes,
        log_max_bytes=ahead.max_bytes,
        problems=tuple(problems),
    )


def _of_log(ahead: Outlook) -> Iterator[Problem]:
    if ahead.share >= WARN_SHARE:
        detail = f"the log takes {_size(ahead.size_bytes)} of {_size(ahead.max_bytes)}"
        what = "lose messages" if ahead.losers else "be dropped from the log, all of it delivered"
        names = ", ".join(loser.name for loser in ahead.losers) or "its oldest part"
        severity: Severity = "warning" if ahead.losers else "advice"
        remedy = "raise TRIGGERKIT_LOG_MAX_BYTES, or let the consumers catch up"
        yield Problem("log_size", severity, f"{detail}; at the limit {names} will {what}", remedy)


def _of_server(database: _Database, identity: SourceIdentity) -> Iterator[Problem]:
    known = database.system_identifier
    if known is not None and known != identity.system_identifier:
        detail = f"DATABASE_URL leads to another server than the log was read from ({known})"
        remedy = "correct DATABASE_URL, or run: triggerkit apply"
        yield Problem("server_changed", "error", detail, remedy)
    elif database.timeline is not None and database.timeline != identity.timeline:
        detail = (
            f"the server is on timeline {identity.timeline}, the log was read from timeline "
            f"{database.timeline}: a standby took over"
        )
        yield Problem("timeline_changed", "warning", detail, "triggerkit check")


def _of_slot(database: _Database, slot: SlotState | None, server_version: int) -> list[Problem]:
    if slot is None:
        detail = f"{database.slot_name} is gone; changes since are missing in the log"
        return [Problem("slot_missing", "error", detail, "triggerkit apply")]
    check = found_slot(slot, database.slot_name)
    if not check.ok:
        name = "slot_lost" if slot.lost_by else "slot_unusable"
        if slot.wal_status == "unreserved":
            name = "slot_nearly_lost"
        return [_problem(name, check)]
    problems = list(wal_problems(slot))
    if slot.active_pid is None:
        detail = f"nobody reads {database.slot_name}: changes wait in the server's WAL"
        problems.append(Problem("slot_inactive", "error", detail, "triggerkit stream"))
    elif database.heartbeat_age_s is not None and database.heartbeat_age_s > HEARTBEAT_S:
        detail = f"no heartbeat came through the WAL for {database.heartbeat_age_s:.0f} s"
        remedy = "see the log of `triggerkit stream`, and restart it"
        problems.append(Problem("heartbeat_late", "warning", detail, remedy))
    if server_version >= FAILOVER_SLOTS and slot.has_standbys and not slot.failover:
        remedy = (
            "stop the stream, then in a replication connection (psql "
            f"'dbname={database.name} replication=database'): ALTER_REPLICATION_SLOT "
            f"{database.slot_name} (FAILOVER true);"
        )
        detail = f"a standby that takes over has no {database.slot_name}"
        problems.append(Problem("no_failover_slot", "advice", detail, remedy))
    return problems


def wal_problems(slot: SlotState) -> Iterator[Problem]:
    """Yield what is wrong with the WAL that the server keeps for the slot: too much, or too
    little."""
    lag, safe = slot.lag_bytes or 0, slot.safe_wal_bytes
    remedy = "triggerkit stream  # and see why it is behind: its log says what it waits for"
    if safe is not None and safe < SAFE_SHARE * (safe + lag):
        detail = f"{_size(safe)} more WAL and the server drops the slot (max_slot_wal_keep_size)"
        yield Problem("slot_nearly_lost", "error", detail, remedy)
    elif lag > LAG_BYTES:
        detail = f"the server keeps {_size(lag)} of WAL that is not in the log yet"
        yield Problem("slot_lag", "warning", detail, remedy)


async def _of_tables(state: Reads, source: Reads, database: _Database) -> list[Problem]:
    publication = database.publication_name
    declared = [
        Declared(name, ConsumerDefinition.from_json(definition), managed_by="api")
        for name, definition in await rows_of(state, _DEFINITIONS, [database.id])
    ]
    (of_tables, tables), of_columns = await asyncio.gather(
        check_tables(source, declared, publication),
        check_columns(source, publication, [(c.name, c.definition) for c in declared]),
    )
    partial = [t for t in tables if t.set_full and t.fault is None]
    of_publication, of_identities = await asyncio.gather(
        check_publication(source, publication, tables, advise=False),
        _of_identities(source, partial),
    )
    checks = [*of_tables, *of_publication, *of_columns]
    return [
        *(_problem(check.name.replace(" ", "_"), check) for check in checks if not check.ok),
        *of_identities,
    ]


async def _of_identities(source: Reads, tables: Sequence[SourceTable]) -> list[Problem]:
    """Advise to have old values where the WAL does not carry them, but may."""
    oids = [table.oid for table in tables]
    large: dict[int, list[str]] = dict(await rows_of(source, _LARGE_COLUMNS, [oids]))
    return [_of_identity(table, large.get(table.oid, [])) for table in tables]


def _of_identity(table: SourceTable, large: Sequence[str]) -> Problem:
    detail = f"{', '.join(table.partial[:3])}"
    if len(table.partial) > 3:
        detail += f" and {len(table.partial) - 3} more partitions"
    detail += " is not REPLICA IDENTITY FULL: changes carry no old values"
    if large:
        listed = ", ".join(large)
        detail += f", and large values of {listed} are missing where an update leaves them"
    return Problem("replica_identity", "advice", detail, table.set_full or "")


def _problem(name: str, check: Check) -> Problem:
    severity: Severity = "error" if check.required else "warning"
    return Problem(
        name, severity, f"{check.name}: {check.detail}", check.remedy or "triggerkit check"
    )


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"

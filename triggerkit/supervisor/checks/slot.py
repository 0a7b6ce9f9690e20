"""The replication slot: there and ours, or to be made."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from triggerkit.supervisor.checks.check import Check, literal, quoted

#: By way of JSON, since which columns there are depends on the server's version.
_SLOT = """
SELECT s.plugin, s.slot_type, s.database, current_database() AS ours, s.active_pid,
    a.application_name AS application, to_jsonb(s) ->> 'wal_status' AS wal_status,
    to_jsonb(s) ->> 'invalidation_reason' AS invalidation_reason
FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
WHERE s.slot_name = %s
"""


@dataclass(frozen=True, slots=True)
class _Slot:
    plugin: str | None
    slot_type: str
    database: str | None
    ours: str
    active_pid: int | None
    application: str | None
    wal_status: str | None
    invalidation_reason: str | None


async def check_slot(source: psycopg.AsyncConnection, slot_name: str) -> Check:
    """Whether the slot can be streamed from, or will be made."""
    async with source.cursor(row_factory=class_row(_Slot)) as cursor:
        await cursor.execute(_SLOT, [slot_name])
        slot = await cursor.fetchone()
    name = "replication slot"
    if slot is None:
        return Check(name, True, f"{slot_name} will be made by `triggerkit apply`")
    drop = f"SELECT pg_drop_replication_slot({literal(slot_name)});"
    remake = f"{drop}  -- then run: triggerkit apply"
    if slot.plugin != "pgoutput":
        kind = slot.plugin or slot.slot_type
        return Check(name, False, f"{slot_name} is of plugin {kind}, not pgoutput", remake)
    if slot.database != slot.ours:
        return Check(
            name,
            False,
            f"{slot_name} is of the database {slot.database}; names are shared by the server",
            f"{drop}  -- in {quoted(slot.database or '')}, if nobody uses it; "
            "then here: triggerkit apply",
        )
    if slot.wal_status == "lost" or slot.invalidation_reason:
        reason = slot.invalidation_reason or "the server removed WAL it still needed"
        return Check(
            name,
            False,
            f"{slot_name} is lost: {reason}; changes since are missing",
            f"{remake}, which says how to read the tables anew",
        )
    if slot.active_pid is not None:
        return _streamed(name, slot_name, slot, slot.active_pid)
    if slot.wal_status == "unreserved":
        detail = f"{slot_name} is about to be lost: it keeps more WAL than the server allows"
        return Check(name, False, detail, "triggerkit stream", required=False)
    return Check(name, True, slot_name)


def _streamed(name: str, slot_name: str, slot: _Slot, pid: int) -> Check:
    who = slot.application or "an unnamed client"
    detail = f"{slot_name}, held by {who} (pid {pid})"
    ours = who.startswith("triggerkit ")
    return Check(name, ours, detail, f"SELECT pg_terminate_backend({pid});")

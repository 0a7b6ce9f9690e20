"""The replication slot: there and ours, or to be made; and the standby that has it, or would take
it over."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
from psycopg.rows import dict_row

from triggerkit.replication.slot.replication_slot import FAILOVER_FROM, identify
from triggerkit.replication.slot.slot_state import SlotState, read_slot
from triggerkit.supervisor.checks.check import Check, literal, quoted
from triggerkit.supervisor.checks.server import STANDBY_FROM

_STANDBY = """
SELECT pg_is_in_recovery() AS stands_by,
    EXISTS (SELECT FROM pg_stat_get_wal_receiver() WHERE pid IS NOT NULL) AS receives,
    current_setting('hot_standby_feedback') = 'on' AS gives_feedback,
    current_setting('primary_slot_name') <> '' AS has_slot
"""

#: What is set at a primary or seen there of its standbys; who sees less than all sees this. Who
#: synchronizes slots has a connection of a name of its own, or of the name that the standby has.
_FAILOVER = """
SELECT to_jsonb(s) ->> 'failover' = 'true' AS failover,
    current_setting('synchronized_standby_slots', true) AS waited_for,
    (SELECT array_agg(p.slot_name::text ORDER BY p.slot_name) FROM pg_replication_slots p
     WHERE p.slot_type = 'physical') AS standbys,
    EXISTS (SELECT FROM pg_stat_activity a WHERE a.application_name LIKE '%%slotsync worker'
        OR a.datid IS NOT NULL AND a.application_name IN (
            SELECT w.application_name FROM pg_replication_slots p
            JOIN pg_stat_activity w ON w.pid = p.active_pid WHERE p.slot_type = 'physical')
    ) AS is_synchronized
FROM pg_replication_slots s WHERE s.slot_name = %s AND NOT pg_is_in_recovery()
"""


async def check_slot(
    source: psycopg.AsyncConnection, slot_name: str, *, was_made: bool = False
) -> Check:
    """Check whether the slot can be streamed from, or will be made; one that `was_made` is to be
    there."""
    slot = await read_slot(source, slot_name)
    if slot is None and was_made:
        detail = f"{slot_name} was made before and is gone; changes since are missing in the log"
        remedy = "triggerkit apply  # makes it again, and says how to read the tables anew"
        return Check("replication slot", False, detail, remedy)
    return found_slot(slot, slot_name)


def found_slot(slot: SlotState | None, slot_name: str) -> Check:
    """Return whether `slot` can be streamed from."""
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
    if slot.lost_by is not None:
        return Check(
            name,
            False,
            f"{slot_name} is lost: {slot.lost_by}; changes since are missing",
            f"{remake}, which says how to read the tables anew",
        )
    if slot.active_pid is not None:
        return _streamed(name, slot_name, slot, slot.active_pid)
    if slot.wal_status == "unreserved":
        detail = f"{slot_name} is about to be lost: it keeps more WAL than the server allows"
        return Check(name, False, detail, "triggerkit stream", required=False)
    return Check(name, True, slot_name)


def _streamed(name: str, slot_name: str, slot: SlotState, pid: int) -> Check:
    who = slot.application or "an unnamed client"
    detail = f"{slot_name}, held by {who} (pid {pid})"
    ours = who.startswith("triggerkit ")
    return Check(name, ours, detail, f"SELECT pg_terminate_backend({pid});")


async def check_standby(
    standby: psycopg.AsyncConnection, source: psycopg.AsyncConnection
) -> list[Check]:
    """Check whether the server that has the slot is a standby of the source's, and keeps it."""
    name = "standby"
    version = standby.info.server_version
    if version < STANDBY_FROM:
        remedy = "unset TRIGGERKIT_STANDBY_URL, or use servers of version 16 or later"
        return [Check(name, False, "before Postgres 16 no standby has such a slot", remedy)]
    own, its = await identify(source), await identify(standby)
    cursor = standby.cursor(row_factory=dict_row)
    facts = await (await cursor.execute(_STANDBY)).fetchone()
    assert facts is not None
    if (own.system_identifier, own.oid) != (its.system_identifier, its.oid):
        remedy = "set TRIGGERKIT_STANDBY_URL to a standby of the server of DATABASE_URL"
        return [Check(name, False, "it is another server's database", remedy)]
    if not facts["stands_by"]:
        is_same = own.timeline == its.timeline
        detail = "it is a primary now" if is_same else "it took over, and DATABASE_URL did not"
        remedy = "unset TRIGGERKIT_STANDBY_URL, and set DATABASE_URL to that server"
        return [Check(name, is_same, detail, remedy)]
    level = await (await source.execute("SHOW wal_level")).fetchone()
    checks = [] if level == ("logical",) else [
        Check("wal_level of the primary", False, str(level and level[0]), _LOGICAL)
    ]  # fmt: skip
    remedy = "see primary_conninfo on the standby, and its log"
    followed = "it follows its primary" if facts["receives"] else "it receives no WAL"
    return [*checks, Check(name, facts["receives"], followed, remedy), *_keeping(facts)]


_LOGICAL = "ALTER SYSTEM SET wal_level = 'logical';  -- on the primary, then restart it"


def _keeping(facts: dict[str, bool]) -> Iterator[Check]:
    """Advise on what keeps the primary from removing rows that the slot still needs."""
    missing = [
        setting
        for setting, is_set in (
            ("hot_standby_feedback = 'on'", facts["gives_feedback"]),
            ("primary_slot_name = '…'", facts["has_slot"]),
        )
        if not is_set
    ]
    if missing:
        remedy = " ".join(f"ALTER SYSTEM SET {setting};" for setting in missing)
        remedy += " SELECT pg_reload_conf();  -- on the standby"
        detail = "the primary may remove rows that the slot needs, and it would be lost"
        yield Check("standby feedback", False, detail, remedy, required=False)


async def check_failover(source: psycopg.AsyncConnection, slot_name: str) -> list[Check]:
    """Advise on what keeps a standby that takes over from having the slot; nothing where there is
    no standby with a slot of its own, or no server that can."""
    if source.info.server_version < FAILOVER_FROM:
        return []
    cursor = source.cursor(row_factory=dict_row)
    facts = await (await cursor.execute(_FAILOVER, [slot_name])).fetchone()
    if facts is None or not facts["standbys"]:
        return []
    name = "failover"
    if not facts["failover"]:
        alter = f"ALTER_REPLICATION_SLOT {slot_name} (FAILOVER true);"
        remedy = f"stop the stream, then in psql '… replication=database': {alter}"
        detail = f"a standby that takes over has no {slot_name}"
    elif not facts["is_synchronized"]:
        detail = f"no standby takes over {slot_name}: none synchronizes slots"
        remedy = (
            "ALTER SYSTEM SET sync_replication_slots = 'on'; ALTER SYSTEM SET hot_standby_feedback "
            "= 'on'; SELECT pg_reload_conf();  -- on the standby, whose primary_conninfo needs a "
            "dbname and which needs a primary_slot_name"
        )
    elif not facts["waited_for"]:
        detail = "the log may be ahead of a standby that takes over"
        slots = literal(", ".join(facts["standbys"]))
        remedy = f"ALTER SYSTEM SET synchronized_standby_slots = {slots}; SELECT pg_reload_conf();"
    else:
        return [Check(name, True, f"standbys take over {slot_name}", required=False)]
    return [Check(name, False, detail, remedy, required=False)]

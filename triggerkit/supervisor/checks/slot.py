"""The replication slot: there and ours, or to be made."""

from __future__ import annotations

import psycopg

from triggerkit.replication.slot.slot_state import SlotState, read_slot
from triggerkit.supervisor.checks.check import Check, literal, quoted


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

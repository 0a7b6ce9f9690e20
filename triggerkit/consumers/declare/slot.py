"""Makes the replication slot, and marks a gap where it takes the place of a lost one."""

from __future__ import annotations

import psycopg

from triggerkit.consumers.declare.plan import stored_consumers
from triggerkit.consumers.gap import mark_gap
from triggerkit.consumers.source.database import OWN_NAMES, CaptureNames, Database
from triggerkit.errors import PreflightFailed
from triggerkit.replication.publication.membership import wal_end
from triggerkit.replication.slot.replication_slot import SourceIdentity, drop_slot, ensure_slot
from triggerkit.replication.slot.slot_state import read_slot

#: A new slot, or another server behind the URL, starts LSNs anew: old progress is void. Epochs are
#: seconds since 1970, so that they also grow when the state was lost that knew the last one.
#: The writer of what the old one captured is refused from now on: its LSNs are not the new one's.
_NEW_SLOT = """
UPDATE triggerkit.databases
SET writer_epoch = writer_epoch + 1, last_commit_lsn = 0,
    slot_epoch = greatest(slot_epoch + 1, extract(epoch FROM now())::int),
    epoch_position = next_position, confirmed_lsn = NULL, system_identifier = %s, timeline = %s,
    database_oid = %s
WHERE id = %s
"""

#: What the slot captured stays its own. The row is locked before: nothing more is captured.
_KEEP_SLOT = """
INSERT INTO triggerkit.past_slots (database_id, epoch, system_identifier, next_position)
SELECT id, slot_epoch, system_identifier, next_position FROM triggerkit.databases
WHERE id = %s
"""

_LAST = "SELECT last_commit_lsn FROM triggerkit.databases WHERE id = %s FOR NO KEY UPDATE"

_FORGET = "DELETE FROM triggerkit.sightings WHERE database_id = %s"


async def ensure_capture_slot(
    source: psycopg.AsyncConnection,
    state: psycopg.AsyncConnection,
    database: Database,
    identity: SourceIdentity,
    *,
    may_lose: bool = False,
    names: CaptureNames = OWN_NAMES,
) -> list[str]:
    """Make the slot if it is missing; what was not captured since the one before is a gap. It is on
    the server behind `source`, or on the standby of it that `names` have.

    Raises:
        PreflightFailed: the server gave the slot up, and its successor would begin after a gap;
            with `may_lose` it is replaced.
    """
    async with names.slots(source) as slots:
        return await _ensure(source, slots, state, database, identity, may_lose=may_lose)


async def _ensure(
    source: psycopg.AsyncConnection,
    slots: psycopg.AsyncConnection,
    state: psycopg.AsyncConnection,
    database: Database,
    identity: SourceIdentity,
    *,
    may_lose: bool,
) -> list[str]:
    slot = await read_slot(slots, database.slot_name)
    if slot is not None and slot.lost_by is not None:
        if not may_lose:
            raise PreflightFailed(
                f"the server gave up the replication slot {database.slot_name} ({slot.lost_by}), "
                "and changes are missing. `triggerkit apply --yes` replaces it and records the "
                "gap; then read the tables again: triggerkit backfill"
            )
        await drop_slot(slots, database.slot_name)
        slot = None
    is_other_server = database.system_identifier != identity.system_identifier
    is_there = slot is not None
    is_replaced = database.slot_epoch > 0 and (is_other_server or not is_there)
    # Before the slot is made: afterwards nobody sees any more that changes are missing.
    gaps = await _begin_anew(source, state, database, identity) if is_replaced else []
    slot_is_new = await ensure_slot(slots, database.slot_name, source)
    if database.slot_epoch == 0:
        await state.execute(_NEW_SLOT, [*_facts(identity), database.id])
    if not slot_is_new:
        return gaps
    return [f"created replication slot {database.slot_name}", *gaps]


def _facts(identity: SourceIdentity) -> list[object]:
    return [identity.system_identifier, identity.timeline, identity.oid]


async def _begin_anew(
    source: psycopg.AsyncConnection,
    state: psycopg.AsyncConnection,
    database: Database,
    identity: SourceIdentity,
) -> list[str]:
    """Note that a slot is to take the place of a lost one; what every consumer is to be told."""
    reason = "the replication slot was lost: changes made until its successor are missing"
    place = await wal_end(source)
    async with state.transaction():
        cursor = await state.execute(_LAST, [database.id])
        [last] = await cursor.fetchone() or [None]
        await state.execute(_KEEP_SLOT, [database.id])
        await state.execute(_NEW_SLOT, [*_facts(identity), database.id])
        # Places of the WAL mean nothing to another slot's.
        await state.execute(_FORGET, [database.id])
        stored = await stored_consumers(state, database.id)
        await mark_gap(
            state, [consumer.id for consumer in stored], reason, from_lsn=last, to_lsn=place
        )
    return [
        f"{reason}; read the tables anew with: triggerkit backfill start {consumer.name}"
        for consumer in stored
    ]

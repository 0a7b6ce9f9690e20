"""A replication slot as the server shows it: whose it is, who streams it, how far it is behind."""

from __future__ import annotations

from dataclasses import dataclass

from triggerkit.state.reading import Reads, rows_of

#: By way of JSON, since which columns there are depends on the server's version.
_SLOT = """
SELECT s.plugin, s.slot_type, s.database, current_database() AS ours, s.active_pid,
    a.application_name AS application, to_jsonb(s) ->> 'wal_status' AS wal_status,
    to_jsonb(s) ->> 'invalidation_reason' AS invalidation_reason,
    coalesce((to_jsonb(s) ->> 'conflicting')::bool, false) AS conflicting,
    (to_jsonb(s) ->> 'safe_wal_size')::bigint AS safe_wal_bytes,
    (to_jsonb(s) ->> 'failover')::bool AS failover,
    (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END
        - s.confirmed_flush_lsn)::bigint AS lag_bytes,
    EXISTS (SELECT FROM pg_replication_slots p WHERE p.slot_type = 'physical') AS has_standbys
FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
WHERE s.slot_name = %s
"""


#: What took a slot of a standby away, in words.
_CONFLICTS = {
    "rows_removed": "the primary removed rows that it still needed, which hot_standby_feedback = on"
    " and primary_slot_name on the standby prevent",
    "wal_level_insufficient": "wal_level of the primary was not logical any more",
}

#: Version 16 does not tell which it was.
_CONFLICT = " or ".join(_CONFLICTS.values())


@dataclass(frozen=True, slots=True)
class SlotState:
    """A row of `pg_replication_slots`. `lag_bytes` is the WAL that is not confirmed yet, and
    `safe_wal_bytes` what may still be written before the slot is lost, None without a limit."""

    plugin: str | None
    slot_type: str
    database: str | None
    ours: str
    active_pid: int | None
    application: str | None
    wal_status: str | None
    invalidation_reason: str | None
    safe_wal_bytes: int | None
    failover: bool | None
    lag_bytes: int | None
    has_standbys: bool
    conflicting: bool = False

    @property
    def lost_by(self) -> str | None:
        """Why the server removed what the slot still needed; None if it did not."""
        reason = self.invalidation_reason
        if self.conflicting:
            return _CONFLICTS.get(reason or "", _CONFLICT)
        if self.wal_status == "lost" or reason:
            return reason or "the server removed WAL it still needed"
        return None


async def read_slot(source: Reads, slot_name: str) -> SlotState | None:
    """Return the slot, None when there is none of this name."""
    return next(iter(await rows_of(source, _SLOT, [slot_name], into=SlotState)), None)

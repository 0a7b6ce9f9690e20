"""Explain why a slot's stream is refused or ended, each reason with its remedy."""

from __future__ import annotations

import psycopg
from psycopg import sql

from triggerkit.errors import CannotConnect, SlotError
from triggerkit.state.connect import connect

_FACTS = """
SELECT current_setting('wal_level'), s.active_pid, to_jsonb(s) ->> 'wal_status',
    to_jsonb(s) ->> 'invalidation_reason'
FROM (SELECT) AS one LEFT JOIN pg_replication_slots s ON s.slot_name = {}
"""

_MAY_STREAM = """
SELECT rolreplication OR rolsuper
    OR coalesce((SELECT pg_has_role(m.oid, 'MEMBER') FROM pg_roles m
                 WHERE m.rolname = 'rds_replication'), false)
FROM pg_roles WHERE rolname = current_user
"""

_ALLOW = "allow it with: ALTER ROLE … REPLICATION"
_REPLACE = (
    "replace it: SELECT pg_drop_replication_slot('{slot}'); then run `triggerkit apply`, and read "
    "the tables again with `triggerkit backfill`, since changes are missing"
)
_RESTART = (
    "run: ALTER SYSTEM SET wal_level = 'logical'; restart the server, then run `triggerkit apply`"
)

#: SQLSTATEs by which the server ends a stream because it removed what the slot still needed.
_LOST_STATES = frozenset({"55000", "58P01"})

#: SQLSTATE of text that the server cannot write as UTF-8.
_NOT_UTF8 = ("22021", "22P05")


async def not_allowed(error: CannotConnect, dsn: str, slot_name: str) -> Exception:
    """Return what `error` is when the role may connect, but not stream.

    The server has no code for it, and words it in a language of its own.
    """
    try:
        async with await connect(dsn, "triggerkit stream") as connection:
            cursor = await connection.execute(_MAY_STREAM)
            row = await cursor.fetchone()
    except (CannotConnect, psycopg.Error):
        return error
    if row != (False,):
        return error
    first, _, _ = str(error).partition(";")
    return SlotError(f"{first}; {_ALLOW}", slot_name)


async def refused(
    connection: psycopg.AsyncConnection, error: psycopg.Error, slot_name: str
) -> SlotError:
    """Why streaming from the slot did not start; `connection` is the one it was asked on."""
    first = str(error).strip().partition("\n")[0] or type(error).__name__
    remedy = "see the server's message"
    try:
        cursor = await connection.execute(sql.SQL(_FACTS).format(slot_name))
        facts = await cursor.fetchone()
    except psycopg.Error:
        facts = None
    if error.sqlstate == "42501":
        remedy = _ALLOW
    elif facts is not None:
        remedy = _remedy(error.sqlstate, slot_name, *facts)
    return SlotError(f"replication slot {slot_name}: {first}; {remedy}", slot_name)


def _remedy(
    sqlstate: str | None,
    slot_name: str,
    wal_level: str,
    active_pid: int | None,
    wal_status: str | None,
    reason: str | None,
) -> str:
    if wal_level != "logical":
        return f"wal_level is {wal_level}, not logical; {_RESTART}"
    if sqlstate == "42704":
        return (
            "it does not exist: run `triggerkit apply` to create a new one, and read the tables "
            "again with `triggerkit backfill`, since changes are missing"
        )
    if sqlstate == "55006":
        return (
            f"process {active_pid} of the server streams from it; stop that client, or wait until "
            "it ends"
        )
    if sqlstate in _LOST_STATES or wal_status == "lost":
        why = f" ({reason.replace('_', ' ')})" if reason else ""
        return (
            f"it is lost{why}: the server removed WAL that it still needed; "
            f"{_REPLACE.format(slot=slot_name)}"
        )
    return "see the server's message"


def ended(message: str, sqlstate: str | None, slot_name: str, publication: str) -> SlotError:
    """Why the server ended the stream of the slot."""
    first = message.strip().partition("\n")[0]
    if sqlstate == "42704":
        return without_publication(slot_name, publication)
    remedy = ""
    if sqlstate in _LOST_STATES:
        remedy = f"; {_REPLACE.format(slot=slot_name)}"
    elif sqlstate in _NOT_UTF8:
        remedy = (
            "; a value of a published table is no text that UTF-8 has: correct it, then "
            f"{_REPLACE.format(slot=slot_name)}"
        )
    return SlotError(f"the server ended the stream: {first}{remedy}", slot_name)


def without_publication(slot_name: str, publication: str) -> SlotError:
    """Return the publication does not exist where changes were written that are to be streamed."""
    return SlotError(
        f"publication {publication} was missing when changes were written, and creating it again "
        f"does not bring them back; {_REPLACE.format(slot=slot_name).replace('it', 'the slot', 1)}",
        slot_name,
    )

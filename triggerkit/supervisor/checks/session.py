"""The settings of our sessions: ours, whatever the role or the database ask for."""

from __future__ import annotations

import psycopg

from triggerkit.state.connect import session_of
from triggerkit.supervisor.checks.check import Check

_SETTING = "SELECT current_setting(%s)"

#: What is asked for of every session of this role, of this database, or of both.
_ASKED = """
SELECT DISTINCT split_part(asked, '=', 1) FROM pg_db_role_setting, unnest(setconfig) AS asked
WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
  AND setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
ORDER BY 1
"""


async def check_session(connection: psycopg.AsyncConnection, name: str) -> Check:
    """Check whether the session on `connection` has the settings that it was given."""
    ours = session_of(connection.info.server_version)
    differing = [name for name, value in ours.items() if await _setting(connection, name) != value]
    if await _setting(connection, "synchronous_commit") == "off":
        differing.append("synchronous_commit")
    if differing:
        detail = f"{', '.join(differing)}: changed after connecting, as by a pooler"
        remedy = "connect to the server itself, or by a pooler that keeps sessions, in DATABASE_URL"
        return Check(name, False, detail, f"{remedy} and TRIGGERKIT_STATE_URL")
    cursor = await connection.execute(_ASKED)
    pinned = {setting.lower() for setting in (*ours, "synchronous_commit")}
    overruled = [setting for (setting,) in await cursor.fetchall() if setting.lower() in pinned]
    if not overruled:
        return Check(name, True, "settings are triggerkit's own")
    of = "of the role or the database do not count here"
    return Check(name, True, f"settings are triggerkit's own: {', '.join(overruled)} {of}")


async def _setting(connection: psycopg.AsyncConnection, name: str) -> str:
    cursor = await connection.execute(_SETTING, [name])
    row = await cursor.fetchone()
    assert row is not None
    return str(row[0])

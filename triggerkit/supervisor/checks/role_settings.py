"""What the role or the database asks for of every session, and hurts tasks' own connections.

Our own sessions are pinned to other values (see `triggerkit.state.connect`); a task that connects
by the same URL has these.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from triggerkit.supervisor.checks.check import Check, literal

#: What was set for whom: nearest wins, so that the role's in this database comes first.
_ASKED = """
SELECT DISTINCT ON (lower(name)) lower(name), setting, r.rolname, d.datname
FROM pg_db_role_setting s
LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase,
    unnest(s.setconfig) AS asked, split_part(asked, '=', 1) AS name,
    substr(asked, length(name) + 2) AS setting
WHERE (s.setdatabase = 0 OR d.datname = current_database())
  AND (s.setrole = 0 OR r.rolname = session_user)
ORDER BY lower(name), s.setrole = 0, s.setdatabase = 0
"""

#: Set to other than 0, they end what takes longer.
LIMITS = frozenset(
    {
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "lock_timeout",
        "statement_timeout",
        "transaction_timeout",
    }
)

_ON = frozenset({"on", "true", "yes", "1"})

_ENCODING = "SELECT current_setting('server_encoding')"


async def check_role_settings(source: psycopg.AsyncConnection) -> list[Check]:
    """Return advice on each setting of the role or the database that ends or refuses what tasks
    do."""
    cursor = await source.execute(_ASKED)
    return [
        Check(
            f"role setting {name}",
            False,
            f"{setting}: {effect}",
            _remedy(name, role, database),
            required=False,
        )
        for name, setting, role, database in await cursor.fetchall()
        if (effect := _effect(name, setting)) is not None
    ]


async def check_encoding(source: psycopg.AsyncConnection) -> list[Check]:
    """Check whether text can be told to be Unicode; nothing is said where it can."""
    row = await (await source.execute(_ENCODING)).fetchone()
    if row is None or row[0] != "SQL_ASCII":
        return []
    name = literal(source.info.dbname)
    detail = "SQL_ASCII takes any bytes for text; a row whose text is not UTF-8 cannot be delivered"
    remedy = (
        f"pg_dump {name} and restore it into: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0;"
    )
    return [Check("database encoding", False, detail, remedy, required=False)]


def _effect(name: str, setting: str) -> str | None:
    if name in LIMITS and setting.strip("0") not in ("", "ms", "s", "min"):
        return "it ends what a task does on a connection of its own for longer; ours are free of it"
    if name in ("default_transaction_read_only", "transaction_read_only") and setting in _ON:
        return "a task that writes on a connection of its own is refused; ours may write"
    if name == "client_encoding" and setting.upper().replace("-", "") not in ("UTF8", "UNICODE"):
        return "a task's own connection cannot read or write every character; ours are UTF8"
    return None


def _remedy(name: str, role: str | None, database: str | None) -> str:
    setting, within = sql.Identifier(name), sql.Identifier(database or "")
    if role is None:
        reset = sql.SQL("ALTER DATABASE {} RESET {};").format(within, setting)
    elif database is None:
        reset = sql.SQL("ALTER ROLE {} RESET {};").format(sql.Identifier(role), setting)
    else:
        reset = sql.SQL("ALTER ROLE {} IN DATABASE {} RESET {};").format(
            sql.Identifier(role), within, setting
        )
    statement = reset.as_string(None)
    # Who types it may be the role that it is about.
    return f"BEGIN READ WRITE; {statement} COMMIT;" if "read_only" in name else statement

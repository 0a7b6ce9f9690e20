"""A database that takes no connections for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

_ALLOW = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
_END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"


@contextmanager
def away(dsn: str) -> Iterator[None]:
    """Refuse connections to the database of `dsn`, and end those that there are."""
    name = str(conninfo_to_dict(dsn)["dbname"])
    with psycopg.connect(dsn, dbname="postgres", autocommit=True) as admin:
        admin.execute(_ALLOW.format(sql.Identifier(name), sql.SQL("false")))
        try:
            admin.execute(_END, [name])
            yield
        finally:
            admin.execute(_ALLOW.format(sql.Identifier(name), sql.SQL("true")))

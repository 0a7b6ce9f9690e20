"""How the statements about runs are planned."""

from __future__ import annotations

from psycopg.conninfo import conninfo_to_dict, make_conninfo


def by_index(dsn: str) -> str:
    """`dsn` for sessions that find runs by index only.

    A session keeps a statement's plan. One made while the table was empty would read it through
    each time, also when a million runs are in it.
    """
    parts = conninfo_to_dict(dsn)
    return make_conninfo(dsn, options=f"{parts.get('options') or ''} -c enable_seqscan=off".strip())

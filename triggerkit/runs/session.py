"""Have Postgres plan the statements about runs by index."""

from __future__ import annotations

from psycopg.conninfo import conninfo_to_dict, make_conninfo

#: Reading a table through is never right here, nor is sorting all that waits to take the first of
#: it; what is joined with given values is looked up by its index for each of them; and an array's
#: length tells the planner nothing that is worth planning each statement anew. No plan is worth
#: being compiled, which takes longer than to follow it.
_SETTINGS = {
    "enable_seqscan": "off",
    "enable_sort": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
}

#: Columns of a query that sets the same for one transaction, where the session has other
#: statements too.
BY_INDEX = ", ".join(f"set_config('{name}', '{to}', true)" for name, to in _SETTINGS.items())


def by_index(dsn: str) -> str:
    """`dsn` for sessions that find runs by index only, with one plan for each statement.

    A session keeps a statement's plan. One made while the table was empty would read it through
    each time, also when a million runs are in it.
    """
    parts = conninfo_to_dict(dsn)
    options = " ".join(f"-c {name}={to}" for name, to in _SETTINGS.items())
    return make_conninfo(dsn, options=f"{parts.get('options') or ''} {options}".strip())

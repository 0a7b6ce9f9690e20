"""The SQL of roles, run by a server: whatever they are called, and twice."""

from __future__ import annotations

import psycopg
from psycopg import sql

from triggerkit.supervisor.roles import state_role

ODD = "a$roles$ \"b'"


def test_an_odd_name_is_the_roles_and_a_second_run_changes_nothing(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        [(database,)] = connection.execute("SELECT current_database()")
        try:
            for _ in range(2):
                connection.execute(state_role(ODD, database).encode())
            found = connection.execute("SELECT rolname FROM pg_roles WHERE rolname = %s", [ODD])
            assert found.fetchall() == [(ODD,)]
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {0}").format(sql.Identifier(ODD)))
            connection.execute(sql.SQL("DROP ROLE {0}").format(sql.Identifier(ODD)))

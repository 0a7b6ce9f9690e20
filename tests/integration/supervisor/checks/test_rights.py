"""A role that lacks rights is told each of them, by statements that grant it."""

from __future__ import annotations

import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tests.integration.supervisor.checks.checking import (
    ITEMS,
    applied,
    checked,
    items_checked,
    run_sql,
)
from triggerkit.consumers.definition import changes
from triggerkit.errors import PreflightFailed
from triggerkit.settings import Settings


def grant(restricted: Settings, role: str, statement: str) -> None:
    """Run a statement with the role's name at its {}."""
    quoted = sql.Identifier(role).as_string(None)
    run_sql(restricted, statement.replace("{}", quoted))


def test_a_role_without_rights_is_told_each_until_apply_works(
    restricted: Settings, role: str
) -> None:
    definition = changes("Shop.items")
    told = []
    for _ in range(5):
        failing = [check for check in checked(restricted, definition).values() if check.failed]
        if not failing:
            break
        told += [check.name for check in failing]
        run_sql(restricted, *(check.remedy or "" for check in failing))
    assert told == [
        "replication privilege",
        "table Shop.items privileges",
        "publication",
    ]
    assert "created consumer task_0" in applied(restricted, definition)
    assert not any(check.failed for check in checked(restricted, definition).values())


def test_apply_says_what_a_superuser_has_to_run(restricted: Settings, role: str) -> None:
    grant(restricted, role, "ALTER ROLE {} REPLICATION")
    with pytest.raises(PreflightFailed, match="let a superuser run: CREATE PUBLICATION"):
        applied(restricted, changes("Shop.items"))


def test_the_tables_owner_makes_the_publication_for_a_role_that_only_reads_them(
    restricted: Settings, role: str
) -> None:
    grant(restricted, role, "ALTER ROLE {} REPLICATION")
    grant(restricted, role, 'GRANT USAGE ON SCHEMA "Shop" TO {}')
    grant(restricted, role, f"GRANT SELECT ON {ITEMS} TO {{}}")
    owner = f"{role} owner"
    grant(restricted, owner, "CREATE ROLE {}")
    try:
        grant(restricted, owner, 'GRANT USAGE, CREATE ON SCHEMA "Shop" TO {}')
        grant(restricted, owner, f"ALTER TABLE {ITEMS} OWNER TO {{}}")
        database = conninfo_to_dict(restricted.source_dsn)["dbname"]
        grant(restricted, owner, f'GRANT CREATE ON DATABASE "{database}" TO {{}}')
        remedy = items_checked(restricted)["publication"].remedy or ""
        assert remedy.endswith("-- as their owner, or a superuser")
        grant(restricted, owner, f"SET ROLE {{}}; {remedy}")
        assert "created consumer task_0" in applied(restricted, changes("Shop.items"))
    finally:
        grant(restricted, owner, "DROP OWNED BY {} CASCADE; DROP ROLE {}")


def test_an_owner_that_may_not_create_a_publication(restricted: Settings, role: str) -> None:
    grant(restricted, role, 'GRANT USAGE, CREATE ON SCHEMA "Shop" TO {}')
    grant(restricted, role, f"ALTER TABLE {ITEMS} OWNER TO {{}}")
    check = items_checked(restricted)["publication"]
    assert (check.remedy or "").startswith("GRANT CREATE ON DATABASE")
    run_sql(restricted, check.remedy or "")
    assert items_checked(restricted)["publication"].ok


def test_amazons_membership_stands_for_the_privilege(restricted: Settings, role: str) -> None:
    run_sql(restricted, "CREATE ROLE rds_replication")
    try:
        check = checked(restricted)["replication privilege"]
        assert (check.remedy or "").startswith("GRANT rds_replication TO")
        run_sql(restricted, check.remedy or "")
        assert checked(restricted)["replication privilege"].ok
    finally:
        run_sql(restricted, "DROP ROLE rds_replication")


def test_row_security_that_hides_rows(restricted: Settings, role: str) -> None:
    grant(restricted, role, 'GRANT USAGE ON SCHEMA "Shop" TO {}')
    grant(restricted, role, f"GRANT SELECT ON {ITEMS} TO {{}}")
    run_sql(restricted, f"ALTER TABLE {ITEMS} ENABLE ROW LEVEL SECURITY")
    check = items_checked(restricted)["table Shop.items privileges"]
    assert (check.remedy or "").endswith("BYPASSRLS;")
    run_sql(restricted, check.remedy or "")
    assert items_checked(restricted)["table Shop.items privileges"].ok


def test_a_state_of_ones_own_is_made_step_by_step(restricted: Settings, role: str) -> None:
    own = restricted.model_copy(update={"triggerkit_state_url": None})
    owner = checked(own)["state schema"]
    assert (owner.remedy or "").startswith('GRANT "postgres" TO')
    run_sql(restricted, "DROP SCHEMA triggerkit CASCADE")
    check = checked(own)["state schema"]
    assert (check.remedy or "").startswith("GRANT CREATE ON DATABASE")
    run_sql(restricted, check.remedy or "")
    assert checked(own)["state schema"].remedy == "triggerkit upgrade"

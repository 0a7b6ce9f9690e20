"""A publication that hides changes or hurts other tables, and what mends it."""

from __future__ import annotations

import psycopg
import pytest

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

ALL = "insert, update, delete, truncate"


@pytest.mark.parametrize(
    ("made", "name", "remedy"),
    [
        pytest.param(
            "CREATE PUBLICATION triggerkit",
            "publication",
            f'ALTER PUBLICATION "triggerkit" ADD TABLE {ITEMS};',
            id="lacks a table",
        ),
        pytest.param(
            f"CREATE PUBLICATION triggerkit FOR TABLE {ITEMS} WITH (publish = 'insert, delete')",
            "published actions",
            f"ALTER PUBLICATION \"triggerkit\" SET (publish = '{ALL}');",
            id="leaves actions out",
        ),
        pytest.param(
            f"CREATE PUBLICATION triggerkit FOR TABLE {ITEMS} WHERE (id > 7)",
            "published part of Shop.items",
            f'BEGIN; ALTER PUBLICATION "triggerkit" DROP TABLE {ITEMS}; '
            f'ALTER PUBLICATION "triggerkit" ADD TABLE {ITEMS}; COMMIT;',
            id="filters rows",
        ),
    ],
)
def test_a_publication_that_hides_changes(
    items: Settings, made: str, name: str, remedy: str
) -> None:
    run_sql(items, made)
    check = items_checked(items)[name]
    assert (check.failed, check.remedy) == (True, remedy)
    run_sql(items, remedy)
    assert not any(found.failed for found in items_checked(items).values())


def test_a_column_list_is_told_as_advice(items: Settings) -> None:
    run_sql(items, f"CREATE PUBLICATION triggerkit FOR TABLE {ITEMS} (id, sku)")
    check = items_checked(items)["published part of Shop.items"]
    assert (check.ok, check.required) == (False, False)
    run_sql(items, check.remedy or "")
    assert "published part of Shop.items" not in items_checked(items)


@pytest.mark.parametrize(
    "held",
    [
        pytest.param("ALL TABLES", id="all tables"),
        pytest.param('TABLES IN SCHEMA "Shop"', id="tables in schema"),
    ],
)
def test_a_publication_of_more_than_our_tables_is_used_as_it_is(items: Settings, held: str) -> None:
    run_sql(items, f"CREATE PUBLICATION triggerkit FOR {held}")
    assert items_checked(items)["publication"].ok
    applied(items, changes("Shop.items"))
    assert not any(check.failed for check in items_checked(items).values())


def test_tables_that_a_publication_of_all_tables_hurts(items: Settings) -> None:
    run_sql(items, "CREATE PUBLICATION triggerkit FOR ALL TABLES", "CREATE TABLE notes (body text)")
    check = items_checked(items)["other published tables"]
    assert (check.ok, check.required) == (False, False)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        run_sql(items, "DELETE FROM notes")
    run_sql(items, check.remedy or "", "DELETE FROM notes")
    assert "other published tables" not in items_checked(items)


def test_a_partitioned_table_comes_under_its_own_name(settings: Settings) -> None:
    run_sql(
        settings,
        "CREATE TABLE orders (id bigint PRIMARY KEY) PARTITION BY RANGE (id)",
        "CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (10)",
        "CREATE PUBLICATION triggerkit FOR TABLE orders",
    )
    definition = changes("orders")
    check = checked(settings, definition)["published partitions"]
    assert check.failed
    with pytest.raises(PreflightFailed) as refused:
        applied(settings, definition)
    assert (check.remedy or "?") in str(refused.value)
    run_sql(settings, check.remedy or "")
    assert not any(found.failed for found in checked(settings, definition).values())
    applied(settings, definition)

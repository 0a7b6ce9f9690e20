"""Tables that cannot be followed, and what lets them be."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("statements", "remedy"),
    [
        pytest.param(
            f"ALTER TABLE {ITEMS} REPLICA IDENTITY NOTHING",
            f"ALTER TABLE {ITEMS} REPLICA IDENTITY FULL;",
            id="nothing",
        ),
        pytest.param(
            f"ALTER TABLE {ITEMS} REPLICA IDENTITY USING INDEX items_sku_key",
            f"ALTER TABLE {ITEMS} REPLICA IDENTITY FULL;",
            id="an index without the primary key",
        ),
        pytest.param(
            f"CREATE UNIQUE INDEX with_note ON {ITEMS} (sku) INCLUDE (id);"
            f"ALTER TABLE {ITEMS} REPLICA IDENTITY USING INDEX with_note",
            f"ALTER TABLE {ITEMS} REPLICA IDENTITY FULL;",
            id="an index that only includes the primary key",
        ),
        pytest.param(
            f"CREATE UNIQUE INDEX gone ON {ITEMS} (id, sku);"
            f"ALTER TABLE {ITEMS} REPLICA IDENTITY USING INDEX gone; DROP INDEX {ITEMS[:6]}.gone",
            f"ALTER TABLE {ITEMS} REPLICA IDENTITY FULL;",
            id="an index that was dropped",
        ),
        pytest.param(
            f"ALTER TABLE {ITEMS} DROP CONSTRAINT items_pkey;"
            f"ALTER TABLE {ITEMS} ADD PRIMARY KEY (id) DEFERRABLE",
            f"ALTER TABLE {ITEMS} REPLICA IDENTITY FULL;",
            id="a deferrable primary key",
        ),
        pytest.param(
            f"ALTER TABLE {ITEMS} SET UNLOGGED",
            f"ALTER TABLE {ITEMS} SET LOGGED;",
            id="unlogged",
        ),
    ],
)
def test_a_table_that_cannot_be_followed(items: Settings, statements: str, remedy: str) -> None:
    run_sql(items, statements)
    check = items_checked(items)["table Shop.items"]
    assert (check.failed, check.remedy) == (True, remedy)
    with pytest.raises(PreflightFailed) as refused:
        applied(items, changes("Shop.items"))
    assert remedy in str(refused.value)
    run_sql(items, remedy)
    assert items_checked(items)["table Shop.items"].ok
    applied(items, changes("Shop.items"))


def test_an_index_that_covers_the_primary_key_identifies(items: Settings) -> None:
    run_sql(
        items,
        f"CREATE UNIQUE INDEX covering ON {ITEMS} (sku, id)",
        f"ALTER TABLE {ITEMS} REPLICA IDENTITY USING INDEX covering",
    )
    check = items_checked(items)["table Shop.items"]
    assert check.ok
    assert "replica identity index" in check.detail
    applied(items, changes("Shop.items"))


def test_a_table_without_a_primary_key(items: Settings) -> None:
    run_sql(items, f"ALTER TABLE {ITEMS} DROP CONSTRAINT items_pkey")
    check = items_checked(items)["table Shop.items"]
    assert check.remedy == f"ALTER TABLE {ITEMS} ADD PRIMARY KEY (…);"
    run_sql(items, check.remedy.replace("…", "id"))
    assert items_checked(items)["table Shop.items"].ok


def test_a_missing_table(settings: Settings) -> None:
    check = items_checked(settings)["table Shop.items"]
    assert check.failed
    assert (check.remedy or "").startswith(f"CREATE TABLE {ITEMS} (")


def test_when_changed_without_old_values_is_advised_against(items: Settings) -> None:
    definition = changes("Shop.items", when_changed=["sku"])
    check = checked(items, definition)["table Shop.items old values"]
    assert (check.ok, check.required) == (False, False)
    run_sql(items, check.remedy or "")
    assert "table Shop.items old values" not in checked(items, definition)

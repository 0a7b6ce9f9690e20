"""Tables that cannot be followed, and what lets them be."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.integration.supervisor.checks.checking import (
    ITEMS,
    applied,
    checked,
    items_checked,
    run_sql,
)
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.definition import changes
from triggerkit.errors import PreflightFailed
from triggerkit.replication.slot.replication_slot import PUBLICATION
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.checks.tables import check_tables
from triggerkit.supervisor.status import read_health


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


def test_what_a_partitioned_tables_deletes_carry_is_told_by_its_partitions(
    settings: Settings,
) -> None:
    run_sql(
        settings,
        "CREATE TABLE orders (id int PRIMARY KEY, note text) PARTITION BY RANGE (id)",
        "CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (10)",
        "ALTER TABLE orders REPLICA IDENTITY FULL",
    )
    definition = changes("orders", when_changed=["note"])
    found = checked(settings, definition)
    assert "deletes in public.orders_1 carry only the key" in found["table public.orders"].detail
    remedy = found["table public.orders old values"].remedy
    assert remedy == 'ALTER TABLE "public"."orders_1" REPLICA IDENTITY FULL;'
    run_sql(settings, remedy)
    found = checked(settings, definition)
    assert "carry all old values" in found["table public.orders"].detail
    assert "table public.orders old values" not in found


def test_children_of_a_table_are_told_of(settings: Settings) -> None:
    run_sql(
        settings,
        "CREATE TABLE orders (id int PRIMARY KEY)",
        "CREATE TABLE more (PRIMARY KEY (id)) INHERITS (orders)",
    )
    check = checked(settings, changes("orders"))["table public.orders children"]
    assert (check.ok, check.required) == (False, False)
    assert "public.more" in check.detail


def test_thousands_of_tables_are_looked_at_in_one_breath(settings: Settings) -> None:
    names = [f"t{number}" for number in range(1000)]
    run_sql(settings, *(f"CREATE TABLE {name} (id int PRIMARY KEY)" for name in names))
    declared = [Declared(name, changes(name), f"/{name}") for name in names]

    async def statements() -> int:
        sent = 0
        async with await connect(settings.source_dsn, "test") as source:
            execute = source.execute

            async def counted(*args: Any, **kwargs: Any) -> Any:
                nonlocal sent
                sent += 1
                return await execute(*args, **kwargs)

            source.execute = counted  # type: ignore[method-assign]
            checks, tables = await check_tables(source, declared, PUBLICATION)
        assert (len(checks), len(tables)) == (2000, 1000)
        return sent

    assert asyncio.run(statements()) < 10


def test_a_column_that_is_retyped_under_a_filter_is_told(items: Settings) -> None:
    filtered = changes("Shop.items", filters=[("id", ">", 5)])
    applied(items, filtered)
    assert "filters of task_0" not in checked(items, filtered)
    run_sql(items, f"ALTER TABLE {ITEMS} ALTER id TYPE numeric")
    assert "filters of task_0" not in checked(items, filtered), "it compares as before"
    run_sql(items, f"ALTER TABLE {ITEMS} ALTER id TYPE text")
    told = checked(items, filtered)["filters of task_0"]
    assert (told.ok, told.required) == (False, False)
    assert told.detail == "column 'id' of Shop.items is text now, and its filter compares int8"
    assert told.remedy is not None
    assert told.remedy.startswith("triggerkit apply")


def test_a_column_that_a_consumer_names_and_is_no_more_is_told(items: Settings) -> None:
    named = changes(
        "Shop.items",
        when_changed=["sku", "id"],
        group_by=["sku"],
        filters=[("sku", "==", "a")],
    )
    applied(items, named)
    assert "columns of task_0" not in checked(items, named)
    run_sql(items, f"ALTER TABLE {ITEMS} RENAME sku TO code")
    told = checked(items, named)["columns of task_0"]
    assert (told.ok, told.required) == (False, False)
    lead = "messages of Shop.items have no column 'sku' any more, which"
    assert told.detail.split("; ") == [
        f"{lead} when_changed names: every update is delivered",
        f"{lead} group_by names: messages are parked",
        f"{lead} filters names: messages pass its filter",
    ]
    health = asyncio.run(read_health(items))
    [problem] = [p for p in health["databases"][0]["problems"] if p["name"] == "columns_of_task_0"]
    assert problem["severity"] == "warning"
    assert told.detail in problem["detail"]

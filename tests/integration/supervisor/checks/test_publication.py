"""Preflight on real servers: each fault is found, and its remedy, taken as it is, mends it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import orjson
import psycopg
import pytest
import redis
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from tests.acceptance.project import eventually, run_command
from tests.integration.pipeline import declare, execute, streaming
from tests.integration.serving import serving
from tests.rabbitmq import RabbitmqServer
from tests.receiver import Receiver
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.definition import ConsumerDefinition, changes
from triggerkit.errors import PreflightFailed
from triggerkit.replication.slot import slot_name_for
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.checks import Check, broker, endpoints, run_checks, server
from triggerkit.web.application import Application

#: A table that can be followed, in a schema whose name has to be quoted.
TABLE = """
CREATE SCHEMA "Shop";
CREATE TABLE "Shop"."items" (id bigint PRIMARY KEY, sku text NOT NULL UNIQUE, note text)
"""

ITEMS = '"Shop"."items"'

ALL = "insert, update, delete, truncate"


def checked(settings: Settings, *definitions: ConsumerDefinition) -> dict[str, Check]:
    """All checks by their name, with a consumer for each definition."""
    declared = [Declared(f"task_{i}", d, f"/task-{i}") for i, d in enumerate(definitions)]
    found = asyncio.run(run_checks(settings, declared, advise=True))
    assert len({check.name for check in found}) == len(found)
    assert all((check.remedy is None) == check.ok for check in found)
    return {check.name: check for check in found}


def items_checked(settings: Settings) -> dict[str, Check]:
    return checked(settings, changes("Shop.items"))


def run_sql(settings: Settings, *statements: str) -> None:
    """Run statements on the source as its superuser."""
    with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def applied(settings: Settings, *definitions: ConsumerDefinition) -> list[str]:
    """What `apply` does with a consumer for each definition."""

    async def connected() -> list[str]:
        declared = [Declared(f"task_{i}", d, f"/task-{i}") for i, d in enumerate(definitions)]
        async with (
            await connect(settings.source_dsn, "test") as source,
            await connect(settings.state_dsn, "test") as state,
        ):
            return await apply(source, state, declared, "http://127.0.0.1:1")

    return asyncio.run(connected())


@pytest.fixture
def items(settings: Settings) -> Settings:
    """Settings for a database with a table to follow."""
    run_sql(settings, TABLE)
    return settings


@pytest.fixture
def role(items: Settings) -> Iterator[str]:
    """A role with no rights at all, under a name that has to be quoted."""
    name = f'shop "{uuid4().hex[:8]}"'
    identifier = sql.Identifier(name)
    with psycopg.connect(items.source_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(identifier))
        yield name
        connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(identifier))
        connection.execute(sql.SQL("DROP ROLE {}").format(identifier))


@pytest.fixture
def restricted(items: Settings, role: str) -> Settings:
    """Settings whose source is read by that role; the state is the superuser's."""
    dsn = SecretStr(make_conninfo(items.source_dsn, user=role))
    return items.model_copy(
        update={"database_url": dsn, "triggerkit_state_url": items.database_url}
    )


def grant(restricted: Settings, role: str, statement: str) -> None:
    """Run a statement with the role's name at its {}."""
    quoted = sql.Identifier(role).as_string(None)
    run_sql(restricted, statement.replace("{}", quoted))


def test_a_sound_project_has_no_fault(items: Settings) -> None:
    before = items_checked(items)
    assert [check for check in before.values() if not check.ok] == [before["endpoint of task_0"]]
    assert not any(check.failed for check in before.values())
    assert "Shop.items will be made" not in before["publication"].detail
    assert "for Shop.items by `triggerkit apply`" in before["publication"].detail
    assert "will be made" in before["replication slot"].detail
    applied(items, changes("Shop.items"))
    after = items_checked(items)
    assert not any(check.failed for check in after.values())
    assert after["replication slot"].detail == slot_name_for(psycopg_name(items))


def psycopg_name(settings: Settings) -> str:
    """The source database's name."""
    with psycopg.connect(settings.source_dsn) as connection:
        return connection.info.dbname


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


def test_an_old_postgres(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MIN_POSTGRES", 990000)
    assert checked(settings)["postgres version"].failed


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


def test_changes_of_partitions_arrive_as_those_of_their_table(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(
                settings,
                "CREATE TABLE orders (id bigint PRIMARY KEY) PARTITION BY RANGE (id)",
                "CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (10)",
            )
            await declare(settings, receiver, changes("orders"))
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO orders VALUES (1)")
                await receiver.until(lambda: len(receiver.messages) == 1)
            assert receiver.messages[0]["metadata"]["table_name"] == "orders"

    asyncio.run(scenario())


def test_with_all_tables_published_the_log_has_each_change_once_and_nothing_else(
    settings: Settings,
) -> None:
    """The state is in the same database: what we write there must not come back to us."""
    count = 50

    def seen() -> tuple[int, int]:
        """Entries in the log, and the newest transaction's id."""
        with psycopg.connect(settings.source_dsn, autocommit=True) as connection:
            row = connection.execute(
                "SELECT (SELECT count(*) FROM triggerkit.events), "
                "txid_snapshot_xmax(txid_current_snapshot())"
            ).fetchone()
        assert row is not None
        return row

    def settled() -> bool:
        with psycopg.connect(settings.source_dsn) as connection:
            open_batches = connection.execute(
                "SELECT FROM triggerkit.cursors WHERE batch_id IS NOT NULL"
            )
            return open_batches.rowcount == 0

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(
                settings,
                "CREATE TABLE items (id bigint PRIMARY KEY)",
                "CREATE PUBLICATION triggerkit FOR ALL TABLES",
            )
            await declare(settings, receiver, changes("items"))
            async with streaming(settings, receiver):
                inserts = [f"INSERT INTO items VALUES ({i})" for i in range(count)]
                await execute(settings, *inserts)
                await receiver.until(lambda: len(receiver.messages) == count)
                await asyncio.to_thread(eventually, settled, 10, "all batches are done")
                entries, newest = seen()
                assert entries == count
                with pytest.raises(TimeoutError):
                    await receiver.until(lambda: len(receiver.messages) > count, timeout_s=1)
                entries, newest_later = seen()
            assert entries == count
            # Not one write has caused another: the server's own housekeeping takes a few.
            assert newest_later - newest < count

    asyncio.run(scenario())


def test_a_slot_of_another_plugin(settings: Settings) -> None:
    name = slot_name_for(psycopg_name(settings))
    run_sql(settings, f"SELECT pg_create_physical_replication_slot('{name}')")
    assert_mended_by_dropping(settings, "plugin physical")


def test_a_slot_of_another_database(settings: Settings, servers_database: Settings) -> None:
    name = slot_name_for(psycopg_name(settings))
    run_sql(servers_database, f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")
    check = checked(settings)["replication slot"]
    assert check.failed
    assert f'in "{psycopg_name(servers_database)}"' in (check.remedy or "")
    run_sql(servers_database, check.remedy or "")
    assert checked(settings)["replication slot"].ok


@pytest.fixture
def servers_database(settings: Settings) -> Settings:
    """Settings for the server's first database, which no test has for its own."""
    dsn = SecretStr(make_conninfo(settings.source_dsn, dbname="postgres"))
    return settings.model_copy(update={"database_url": dsn})


def test_a_lost_slot(settings: Settings) -> None:
    applied(settings)
    run_sql(settings, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    try:
        run_sql(settings, "SELECT pg_reload_conf()")
        fill = "CREATE TABLE filler AS SELECT 1 AS a", "DROP TABLE filler", "SELECT pg_switch_wal()"
        run_sql(settings, *(3 * fill), "CHECKPOINT")
        eventually(lambda: not checked(settings)["replication slot"].ok, 20, "the slot is lost")
        assert_mended_by_dropping(settings, "is lost")
    finally:
        run_sql(settings, "ALTER SYSTEM RESET max_slot_wal_keep_size", "SELECT pg_reload_conf()")


def test_a_slot_that_is_gone(items: Settings) -> None:
    settings, definition = items, changes("Shop.items")
    applied(settings, definition)
    assert "captured changes" not in checked(settings)
    run_sql(settings, f"SELECT pg_drop_replication_slot('{slot_name_for(psycopg_name(settings))}')")
    check = checked(settings)["captured changes"]
    assert (check.ok, check.required) == (False, False)
    assert (check.remedy or "").startswith("triggerkit apply")
    assert any("read the tables anew" in line for line in applied(settings, definition))
    assert "captured changes" not in checked(settings)


def assert_mended_by_dropping(settings: Settings, detail: str) -> None:
    check = checked(settings)["replication slot"]
    assert check.failed
    assert detail in check.detail
    assert (check.remedy or "").startswith("SELECT pg_drop_replication_slot('triggerkit_")
    run_sql(settings, check.remedy or "")
    assert any("created replication slot" in line for line in applied(settings))
    assert checked(settings)["replication slot"].ok


def replicating(settings: Settings, application: str) -> psycopg.Connection:
    """A connection that takes one of the WAL senders."""
    dsn = make_conninfo(settings.source_dsn, replication="database", application_name=application)
    return psycopg.connect(dsn, autocommit=True)


@pytest.mark.parametrize("application", ["pg_recvlogical", ""], ids=["named", "unnamed"])
def test_a_slot_that_somebody_else_holds(settings: Settings, application: str) -> None:
    applied(settings)
    slot = slot_name_for(psycopg_name(settings))
    with closing(replicating(settings, application)) as somebody:
        somebody.execute(
            f"START_REPLICATION SLOT {slot} LOGICAL 0/0 "
            "(proto_version '1', publication_names 'triggerkit')"
        )
        check = checked(settings)["replication slot"]
        assert check.failed
        assert check.remedy == f"SELECT pg_terminate_backend({somebody.info.backend_pid});"
        run_sql(settings, check.remedy)
        eventually(lambda: checked(settings)["replication slot"].ok, 10, "the slot is free")


def test_our_own_stream_may_hold_the_slot(settings: Settings) -> None:
    async def scenario() -> Check:
        async with Receiver.start() as receiver:
            await declare(settings, receiver, changes("items"))
            async with streaming(settings, receiver):
                found = await run_checks(settings, [])
                return next(check for check in found if check.name == "replication slot")

    run_sql(settings, "CREATE TABLE items (id bigint PRIMARY KEY)")
    check = asyncio.run(scenario())
    assert check.ok
    assert "held by triggerkit stream" in check.detail


def test_no_slot_is_free(settings: Settings) -> None:
    limit = number(settings, "SHOW max_replication_slots")
    taken = number(settings, "SELECT count(*) FROM pg_replication_slots")
    names = [f"taken_{i}" for i in range(limit - taken)]
    try:
        for name in names:
            run_sql(settings, f"SELECT pg_create_physical_replication_slot('{name}')")
        check = checked(settings)["free replication slots"]
        assert check.failed
        assert f"max_replication_slots = {limit + 10};" in (check.remedy or "")
    finally:
        for name in names:
            run_sql(settings, f"SELECT pg_drop_replication_slot('{name}')")
    assert checked(settings)["free replication slots"].ok


def test_no_wal_sender_is_free(settings: Settings) -> None:
    limit = number(settings, "SHOW max_wal_senders")
    left = "SELECT count(*) FROM pg_stat_replication"
    eventually(lambda: number(settings, left) == 0, 10, "the senders of other tests are gone")
    held = [replicating(settings, "test") for _ in range(limit)]
    try:
        check = checked(settings)["free WAL senders"]
        assert check.failed
        assert f"max_wal_senders = {limit + 10};" in (check.remedy or "")
    finally:
        for connection in held:
            connection.close()
    eventually(lambda: checked(settings)["free WAL senders"].ok, 10, "a sender is free")


def number(settings: Settings, query: str) -> int:
    with psycopg.connect(settings.source_dsn) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_pgvector_is_advice(settings: Settings) -> None:
    assert checked(settings)["pgvector"].ok
    run_sql(settings, "DROP EXTENSION vector")
    check = checked(settings)["pgvector"]
    assert (check.ok, check.failed, check.remedy) == (False, False, "CREATE EXTENSION vector;")
    run_sql(settings, check.remedy or "")
    assert checked(settings)["pgvector"].ok


def test_a_server_without_pgvector_is_told_what_to_install(settings: Settings) -> None:
    if number(settings, "SHOW server_version_num") < 180000:
        pytest.skip("only Postgres 18 can be told to look for extensions elsewhere")
    database = psycopg_name(settings)
    run_sql(settings, f"ALTER DATABASE {database} SET extension_control_path = '/nowhere'")
    check = checked(settings)["pgvector"]
    assert (check.ok, check.failed) == (False, False)
    assert "-pgvector" in (check.remedy or "")


def test_a_state_database_that_does_not_answer(settings: Settings) -> None:
    nowhere = SecretStr("postgresql://shop:hunter2@127.0.0.1:1/shop")
    found = checked(settings.model_copy(update={"triggerkit_state_url": nowhere}))
    check = found["state database reachable"]
    assert check.failed
    assert "TRIGGERKIT_STATE_URL" in (check.remedy or "")
    assert "hunter2" not in check.detail
    assert found["redis reachable"].ok


def test_a_state_of_ones_own_is_made_step_by_step(restricted: Settings, role: str) -> None:
    own = restricted.model_copy(update={"triggerkit_state_url": None})
    owner = checked(own)["state schema"]
    assert (owner.remedy or "").startswith('GRANT "postgres" TO')
    run_sql(restricted, "DROP SCHEMA triggerkit CASCADE")
    check = checked(own)["state schema"]
    assert (check.remedy or "").startswith("GRANT CREATE ON DATABASE")
    run_sql(restricted, check.remedy or "")
    assert checked(own)["state schema"].remedy == "triggerkit upgrade"


def test_redis_that_does_not_answer(settings: Settings) -> None:
    update = {"redis_url": SecretStr("redis://:hunter2@127.0.0.1:1/0")}
    check = checked(settings.model_copy(update=update))["redis reachable"]
    assert check.failed
    assert "hunter2" not in check.detail


def test_a_redis_url_that_is_none(settings: Settings) -> None:
    update = {"redis_url": SecretStr("redis://:hun#ter2@127.0.0.1:1/0")}
    check = checked(settings.model_copy(update=update))["redis reachable"]
    assert check.failed
    assert "hun" not in f"{check.detail} {check.remedy}"


def test_an_old_redis(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "MIN_REDIS", (99, 0))
    assert checked(settings)["redis version"].failed


def test_a_redis_that_forgets(settings: Settings) -> None:
    with redis.Redis.from_url(settings.broker_dsn) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            check = checked(settings)["redis eviction policy"]
            assert check.failed
            client.execute_command(*(check.remedy or "").split())
            assert checked(settings)["redis eviction policy"].ok
        finally:
            client.config_set("maxmemory-policy", "noeviction")


def test_a_rabbitmq_that_answers(settings: Settings, rabbitmq_server: RabbitmqServer) -> None:
    update = {"triggerkit_broker_url": SecretStr(rabbitmq_server.url), "redis_url": None}
    checks = checked(settings.model_copy(update=update))
    assert checks["rabbitmq reachable"].ok
    assert "guest" not in checks["rabbitmq reachable"].detail
    assert not any("redis" in name for name in checks)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://user:hunter2@127.0.0.1:1/%2F",
        "amqp://user:hunter2@127.0.0.1:port/",
        "amqp://user:hunter2@127.0.0.1:1/?heartbeat=hunter2",
        "kafka://user:hunter2@127.0.0.1/",
        "redis://:hunter2@127.0.0.1/0",
    ],
)
def test_a_rabbitmq_that_does_not_answer(settings: Settings, url: str) -> None:
    update = {"triggerkit_broker_url": SecretStr(url)}
    check = checked(settings.model_copy(update=update))["rabbitmq reachable"]
    assert check.failed
    assert "TRIGGERKIT_BROKER_URL" in (check.remedy or "")
    assert "hunter2" not in f"{check.detail} {check.remedy}"


def test_a_rabbitmq_that_refuses_the_password(
    settings: Settings, rabbitmq_server: RabbitmqServer
) -> None:
    url = rabbitmq_server.url.replace("guest:guest", "guest:hunter2")
    update = {"triggerkit_broker_url": SecretStr(url)}
    check = checked(settings.model_copy(update=update))["rabbitmq reachable"]
    assert check.failed
    assert "ACCESS_REFUSED" in check.detail
    assert "hunter2" not in f"{check.detail} {check.remedy}"


def test_a_webhook_secret_that_is_not_set(settings: Settings, tmp_path: Path) -> None:
    bare = settings.model_copy(update={"triggerkit_webhook_secret": None})
    check = checked(bare)["webhook secret"]
    assert check.failed
    programs = str(Path(sys.executable).parent)
    subprocess.run(
        ["/bin/sh", "-c", check.remedy or ""],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        check=True,
    )
    name, _, value = (tmp_path / ".env").read_text().strip().partition("=")
    generated = Settings.parse({name: value}).triggerkit_webhook_secret
    again = settings.model_copy(update={"triggerkit_webhook_secret": generated})
    assert checked(again)["webhook secret"].ok


def test_a_server_for_others_needs_a_key(settings: Settings) -> None:
    assert "secret key" not in checked(settings)
    assert checked(settings.model_copy(update={"triggerkit_host": "0.0.0.0"}))["secret key"].failed


def endpoint(settings: Settings, url: str, networks: str = "") -> Check:
    """The check of a consumer's endpoint when our routes are reached under `url`."""
    run_sql(settings, "CREATE TABLE IF NOT EXISTS public.items (id bigint PRIMARY KEY)")
    update = {"triggerkit_public_url": url, "triggerkit_allow_networks": networks}
    return checked(settings.model_copy(update=update), changes("items"))["endpoint of task_0"]


def test_an_endpoint_that_serves(settings: Settings) -> None:
    with serving(Application(settings, [], None)) as site:
        check = endpoint(settings, f"http://127.0.0.1:{site.port}")
    assert check.ok
    assert f":{site.port}/task-0" in check.detail


def test_nothing_serves_yet(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    check = endpoint(settings, f"http://127.0.0.1:{port}")
    assert (check.ok, check.failed) == (False, False)
    assert "triggerkit serve" in (check.remedy or "")
    assert "triggerkit dev" in (check.remedy or "")


def test_somebody_else_listens_and_gets_no_delivery(settings: Settings) -> None:
    async def scenario() -> Check:
        async with Receiver.start() as receiver:
            check = await asyncio.to_thread(endpoint, settings, receiver.url)
            assert receiver.requests == []
            return check

    check = asyncio.run(scenario())
    assert (check.ok, check.failed) == (False, False)
    assert "404" in check.detail


def test_a_proxy_with_nothing_behind_it(settings: Settings) -> None:
    async def answer(_request: object) -> Response:
        return Response(status_code=502)

    with serving(Starlette(routes=[Route("/healthz", answer)])) as site:
        check = endpoint(settings, f"http://127.0.0.1:{site.port}")
    assert check.failed
    assert "502" in check.detail


def test_an_endpoint_that_does_not_answer(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        check = endpoint(settings, f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert check.failed
    assert "no answer" in check.detail


def test_a_private_address_is_not_asked_but_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = endpoint(settings, "http://10.255.0.7:8000", "192.168.1.0/24")
    assert check.failed
    assert check.remedy == "TRIGGERKIT_ALLOW_NETWORKS=192.168.1.0/24,10.255.0.7/32"
    monkeypatch.setattr(endpoints, "TIMEOUT_S", 0.01)
    allowed = (check.remedy or "").partition("=")[2]
    assert "not public" not in endpoint(settings, "http://10.255.0.7:8000", allowed).detail


@pytest.mark.parametrize(
    "url",
    ["http://nowhere.invalid", "ftp://127.0.0.1", "http://127.0.0.1:port", "http://me@127.0.0.1"],
    ids=["unknown", "no http", "no port", "user"],
)
def test_a_public_url_that_nothing_can_be_sent_to(settings: Settings, url: str) -> None:
    check = endpoint(settings, url)
    assert check.failed
    assert "TRIGGERKIT_PUBLIC_URL" in (check.remedy or "")


def test_advice_is_left_out_where_only_what_must_hold_is_asked_for(settings: Settings) -> None:
    run_sql(settings, "DROP EXTENSION vector")
    found = asyncio.run(run_checks(settings, []))
    assert all(check.ok and check.required for check in found)
    assert not any(check.name == "pgvector" for check in found)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project without a task."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").touch()
    return tmp_path


def test_the_command_shows_advice_and_does_not_fail_by_it(
    settings: Settings, project: Path
) -> None:
    run_sql(settings, "DROP EXTENSION vector")
    command = run_command(project, "triggerkit", "check", settings=settings.environment())
    assert command.returncode == 0, command.stdout + command.stderr
    assert "\n! pgvector: " in command.stdout
    assert "    mend it with: CREATE EXTENSION vector;\n" in command.stdout
    assert "✗" not in command.stdout


def test_the_command_fails_by_what_must_hold(settings: Settings, project: Path) -> None:
    name = slot_name_for(psycopg_name(settings))
    run_sql(settings, f"SELECT pg_create_physical_replication_slot('{name}')")
    environment = settings.environment()
    text = run_command(project, "triggerkit", "check", settings=environment)
    as_json = run_command(project, "triggerkit", "check", "--json", settings=environment)
    run_sql(settings, f"SELECT pg_drop_replication_slot('{name}')")
    assert (text.returncode, as_json.returncode) == (3, 3)
    assert f"✗ replication slot: {name} is of plugin physical" in text.stdout
    facts = orjson.loads(as_json.stdout)
    assert [f["name"] for f in facts if not f["ok"] and f["required"]] == ["replication slot"]
    for fact in facts:
        assert f"{fact['name']}: {fact['detail']}" in text.stdout
        assert fact["remedy"] is None or fact["remedy"] in text.stdout

"""Health: the lag of consumers, and each problem by its name with its remedy."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import orjson
import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from tests.acceptance.project import eventually
from tests.integration.consumers.kept_log import add_consumer, add_database, fill
from tests.integration.pipeline import declare, execute
from tests.receiver import Receiver
from triggerkit.cli.main import application
from triggerkit.consumers import health as health_module
from triggerkit.consumers.definition import changes
from triggerkit.consumers.health import ConsumerHealth, Problem, consumer_health, with_losses
from triggerkit.consumers.retention import Loser, Outlook, Policy
from triggerkit.log import tables as tables_module
from triggerkit.log.entry import PARTITIONS
from triggerkit.replication.slot.replication_slot import slot_name_for
from triggerkit.replication.slot.slot_state import SlotState
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.health import CapturedDatabase, database_health, wal_problems

POLICY = Policy(timedelta(days=7), 10**12)

TABLE = "CREATE TABLE items (id bigint PRIMARY KEY, name text)"


def of_consumers(url: str, outlook: Outlook | None = None) -> dict[str, ConsumerHealth]:
    async def read() -> list[ConsumerHealth]:
        async with await connect(url, "test") as state:
            return with_losses(await consumer_health(state), [outlook] if outlook else [])

    return {health.name: health for health in asyncio.run(read())}


def of_database(settings: Settings, policy: Policy = POLICY) -> CapturedDatabase:
    async def read() -> CapturedDatabase:
        async with (
            await connect(settings.state_dsn, "test") as state,
            await connect(settings.source_dsn, "test") as source,
        ):
            [found], _ = await database_health(state, source, policy)
            return found

    return asyncio.run(read())


def named(problems: tuple[Problem, ...]) -> dict[str, Problem]:
    assert all(p.detail and p.remedy for p in problems)
    return {problem.name: problem for problem in problems}


def change(url: str, statement: str, *parameters: object) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement, parameters)


@pytest.fixture
def captured(settings: Settings) -> Settings:
    """A database with a consumer of `items`, and no stream."""

    async def make() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items"))

    asyncio.run(make())
    return settings


def test_lag_counts_what_a_consumer_has_not_got(database_url: str) -> None:
    database_id = add_database(database_url)
    asyncio.run(fill(database_url, database_id, 300))
    add_consumer(database_url, database_id, "behind", 100)
    add_consumer(database_url, database_id, "elsewhere", 0, table="others")
    add_consumer(database_url, database_id, "done", 300)
    found = of_consumers(database_url)
    assert {name: health.lag_messages for name, health in found.items()} == {
        "behind": 200,
        "elsewhere": 0,
        "done": 0,
    }
    assert found["behind"].lag_seconds > 0
    assert found["behind"].oldest_undelivered_at is not None
    assert (found["done"].lag_seconds, found["done"].problems) == (0, ())


def test_the_one_cursor_of_a_consumer_ordered_as_a_whole_counts_for_all_partitions(
    database_url: str,
) -> None:
    database_id = add_database(database_url)
    asyncio.run(fill(database_url, database_id, 300))
    consumer_id = add_consumer(database_url, database_id, "whole", 0)
    change(database_url, "DELETE FROM triggerkit.cursors WHERE consumer_id = %s", consumer_id)
    change(database_url, "INSERT INTO triggerkit.cursors VALUES (%s, -1, 100)", consumer_id)
    assert of_consumers(database_url)["whole"].lag_messages == 200


def test_a_lag_beyond_what_is_counted_is_estimated(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables_module, "TABLE_PARTITION_SIZE", 1000)
    monkeypatch.setattr(health_module, "COUNTED", 50)
    database_id = add_database(database_url)
    asyncio.run(fill(database_url, database_id, 5000))
    add_consumer(database_url, database_id, "behind", 0)
    add_consumer(database_url, database_id, "elsewhere", 0, table="others")
    found = of_consumers(database_url)
    assert found["behind"].lag_messages == pytest.approx(5000, rel=0.1)
    assert found["elsewhere"].lag_messages == 0


def test_the_lag_is_read_by_the_index_however_long_the_log(database_url: str) -> None:
    database_id = add_database(database_url)
    asyncio.run(fill(database_url, database_id, 2000))
    add_consumer(database_url, database_id, "behind", 0)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ANALYZE triggerkit.events")
        parameters = {
            "counted": 10, "together": 1000, "least": 10, "partitions": PARTITIONS, "parked": 10,
            "states": ["failing"],
        }  # fmt: skip
        plan = connection.execute(f"EXPLAIN {health_module._LAG}", parameters).fetchall()
    assert sum("Limit" in line for (line,) in plan) == 2  # of the log and of what is parked
    of_events = [line for (line,) in plan if "events_" in line]
    assert of_events
    assert all("Index" in line for line in of_events), of_events


def test_what_is_wrong_with_a_consumer_is_named_with_its_remedy(database_url: str) -> None:
    database_id = add_database(database_url)
    consumer_id = add_consumer(database_url, database_id, "sad", 0)
    change(
        database_url,
        "UPDATE triggerkit.consumers SET state = 'paused', last_error = 'answered 503'",
    )
    change(
        database_url,
        "INSERT INTO triggerkit.gaps (consumer_id, kind, cause, ended_at) "
        "SELECT id, 'slot', 'the slot was lost', now() FROM triggerkit.consumers",
    )
    change(
        database_url,
        "INSERT INTO triggerkit.backfills (consumer_id, schema_name, table_name, state, error) "
        "VALUES (%s, 'public', 'items', 'failed', 'permission denied')",
        consumer_id,
    )
    change(
        database_url,
        "INSERT INTO triggerkit.parked (consumer_id, partition, position, key, body, reason, "
        "state) SELECT %s, 0, n, n::text, '{}', 'r', s FROM unnest("
        "ARRAY['failing', 'waiting', 'waiting', 'blocked', 'dead', 'dead', 'dead']) "
        "WITH ORDINALITY AS t (s, n)",
        consumer_id,
    )
    change(
        database_url,
        "UPDATE triggerkit.cursors SET batch_id = 'b', batch_last = 9, attempt = 2 "
        "WHERE consumer_id = %s AND partition = 3",
        consumer_id,
    )
    change(
        database_url,
        "INSERT INTO triggerkit.deliveries (consumer_id, partition, first_position, "
        "last_position, batch_id, attempt, messages, sent_at, status) "
        "VALUES (%s, 3, 1, 9, 'b', 1, 9, '2026-01-02 03:04:05Z', 503)",
        consumer_id,
    )
    loser = Outlook(90, 100, (Loser(consumer_id, "sad", 7),), None)
    health = of_consumers(database_url, loser)["sad"]
    assert (health.failing, health.waiting, health.blocked, health.dead) == (1, 2, 1, 3)
    assert health.parked == 7
    problems = named(health.problems)
    assert problems["paused"].remedy == "triggerkit consumers resume sad"
    assert problems["gap"].remedy.startswith("triggerkit backfill start sad")
    assert "since 2026-01-02 03:04:05 UTC: answered 503" in problems["endpoint_failing"].detail
    assert "permission denied" in problems["backfill_failed"].detail
    assert "7 messages" in problems["losing_messages"].detail
    assert {"blocked", "failing", "dead"} < problems.keys()
    change(database_url, "UPDATE triggerkit.consumers SET state = 'disabled'")
    assert "410" in named(of_consumers(database_url)["sad"].problems)["disabled"].detail


def test_a_backfill_that_was_started_again_is_no_problem(database_url: str) -> None:
    database_id = add_database(database_url)
    consumer_id = add_consumer(database_url, database_id, "mended", 0)
    for state in ("failed", "completed"):
        change(
            database_url,
            "INSERT INTO triggerkit.backfills (consumer_id, schema_name, table_name, state) "
            "VALUES (%s, 'public', 'items', %s)",
            consumer_id,
            state,
        )
    assert of_consumers(database_url)["mended"].problems == ()


def test_a_slot_that_nobody_reads_and_one_that_is_gone(captured: Settings) -> None:
    health = of_database(captured)
    assert named(health.problems).keys() == {"slot_inactive", "replica_identity"}
    assert (health.slot_active, health.log_first_position, health.log_last_position) == (
        False,
        1,
        0,
    )
    assert health.slot_lag_bytes is not None
    change(captured.source_dsn, "SELECT pg_drop_replication_slot(%s)", health.slot_name)
    problems = named(of_database(captured).problems)
    assert problems["slot_missing"].remedy == "triggerkit apply"


def test_status_shows_each_problem_under_what_it_is_about(
    captured: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    change(captured.state_dsn, "UPDATE triggerkit.consumers SET state = 'paused'")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks.py").touch()
    for name, value in captured.environment().items():
        monkeypatch.setenv(name, value)
    shown = CliRunner().invoke(application("status"), ["status"])
    assert shown.exit_code == 1, shown.output
    lines = shown.output.splitlines()
    [database] = [n for n, line in enumerate(lines) if line.startswith("✗ database")]
    assert "nobody reads" in lines[database + 1]
    assert lines[database + 2].strip() == "fix it with: triggerkit stream"
    [consumer] = [n for n, line in enumerate(lines) if line.startswith("! consumer test")]
    assert "paused" in lines[consumer + 1]
    as_json = orjson.loads(CliRunner().invoke(application("status"), ["status", "--json"]).output)
    assert [p["name"] for p in as_json["consumers"][0]["problems"]] == ["paused"]
    assert as_json["databases"][0]["problems"][0]["severity"] == "error"


def test_a_slot_that_somebody_else_reads(captured: Settings) -> None:
    slot = slot_name_for(of_name(captured))

    async def scenario() -> None:
        other = await connect(captured.source_dsn, "somebody", replication=True)
        try:
            await other.execute(
                sql.SQL(
                    "START_REPLICATION SLOT {} LOGICAL 0/0 "
                    "(proto_version '1', publication_names 'triggerkit')"
                ).format(sql.Identifier(slot))
            )
            found = await asyncio.to_thread(of_database, captured)
            assert "held by somebody" in named(found.problems)["slot_unusable"].detail
        finally:
            await other.close()

    asyncio.run(scenario())
    eventually(lambda: not of_database(captured).slot_active, 10, "the slot is free")


def of_name(settings: Settings) -> str:
    with psycopg.connect(settings.source_dsn) as connection:
        return connection.info.dbname


@pytest.mark.parametrize(
    ("lag_bytes", "safe_wal_bytes", "names"),
    [
        (1_000_000, None, []),
        (2_000_000_000, None, ["slot_lag"]),
        (2_000_000_000, 8_000_000_000, ["slot_lag"]),
        (100, 900, []),
        (900, 100, ["slot_nearly_lost"]),
        (2_000_000_000, -1, ["slot_nearly_lost"]),
    ],
)
def test_wal_that_a_slot_keeps(
    lag_bytes: int, safe_wal_bytes: int | None, names: list[str]
) -> None:
    slot = SlotState(
        plugin="pgoutput",
        slot_type="logical",
        database="d",
        ours="d",
        active_pid=1,
        application="triggerkit stream",
        wal_status="extended",
        invalidation_reason=None,
        safe_wal_bytes=safe_wal_bytes,
        failover=False,
        lag_bytes=lag_bytes,
        has_standbys=False,
    )
    assert [problem.name for problem in wal_problems(slot)] == names


def test_what_is_wrong_with_the_tables_is_told_as_check_tells_it(captured: Settings) -> None:
    change(captured.source_dsn, "ALTER PUBLICATION triggerkit DROP TABLE public.items")
    problems = named(of_database(captured).problems)
    assert "ADD TABLE" in problems["publication"].remedy
    assert "name" in problems["replica_identity"].detail
    change(captured.source_dsn, "ALTER PUBLICATION triggerkit ADD TABLE public.items")
    change(captured.source_dsn, "ALTER TABLE public.items REPLICA IDENTITY FULL")
    assert named(of_database(captured).problems).keys() == {"slot_inactive"}
    change(captured.source_dsn, "DROP TABLE public.items")
    assert "table_public.items" in named(of_database(captured).problems)


def test_another_server_and_a_late_heartbeat(captured: Settings) -> None:
    change(captured.state_dsn, "UPDATE triggerkit.databases SET timeline = timeline + 1")
    assert "timeline_changed" in named(of_database(captured).problems)
    change(
        captured.state_dsn,
        "UPDATE triggerkit.databases SET system_identifier = '1', "
        "heartbeat_at = now() - interval '5 minutes'",
    )
    health = of_database(captured)
    assert "server_changed" in named(health.problems)
    assert health.lag_seconds == pytest.approx(300, abs=30)


def test_a_log_near_its_limit(captured: Settings) -> None:
    with psycopg.connect(captured.state_dsn) as connection:
        row = connection.execute("SELECT id FROM triggerkit.databases").fetchone()
    assert row is not None
    asyncio.run(fill(captured.state_dsn, row[0], 100))
    size = of_database(captured).log_bytes
    assert size > 0
    near = of_database(captured, Policy(timedelta(days=7), size * 10 // 9))
    assert named(near.problems)["log_size"].severity == "advice"

"""What a transaction says of itself, and what is confirmed of it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.capture.rig.source import Source
from triggerkit.lsn import Lsn
from triggerkit.replication import connection as connection_module
from triggerkit.replication.capture import Capture, TransactionPart

ITEMS = "CREATE TABLE items (id bigint PRIMARY KEY, name text)"


def annotate(prefix: str, content: str = "") -> str:
    return f"SELECT pg_logical_emit_message(true, '{prefix}', '{content}')"


def annotated(parts: list[TransactionPart]) -> list[tuple[str, str | None]]:
    return [(c.key[0], part.transaction.annotations) for part in parts for c in part.changes]


@pytest.mark.parametrize("vendor", ["triggerkit:", "sequin:", "sequin."])
def test_annotations_are_of_the_changes_that_follow_in_their_transaction(
    source: Source, vendor: str
) -> None:
    if source.version < 14:
        pytest.skip("messages are streamed from Postgres 14 on")
    source.execute(ITEMS)
    source.follow("items")
    prefix, mark = f"{vendor[:-1]}:transaction_annotations", vendor[-1]
    source.execute(
        "BEGIN; INSERT INTO items VALUES (1);"
        + annotate(f"{prefix}{mark}set", '{"by": "ann"}')
        + "; INSERT INTO items VALUES (2), (3);"
        + annotate(f"{prefix}{mark}set", '{"by": "bob"}')
        + "; INSERT INTO items VALUES (4);"
        + annotate(f"{prefix}{mark}clear")
        + "; INSERT INTO items VALUES (5); COMMIT",
        "INSERT INTO items VALUES (6)",
    )
    parts = source.parts()
    assert annotated(parts) == [
        *[("1", None), ("2", '{"by": "ann"}'), ("3", '{"by": "ann"}')],
        *[("4", '{"by": "bob"}'), ("5", None), ("6", None)],
    ]
    indexes = [i for part in parts for i, _ in enumerate(part.changes, part.first_idx)]
    assert indexes == [0, 1, 2, 3, 4, 0]
    assert [part.end_lsn is not None for part in parts[-2:]] == [True, True]


def test_messages_that_an_application_writes_into_the_wal_are_passed_over(source: Source) -> None:
    if source.version < 14:
        pytest.skip("messages are streamed from Postgres 14 on")
    source.execute(ITEMS)
    source.follow("items")
    source.execute(
        "SELECT pg_logical_emit_message(true, 'outbox', repeat('x', 1000)) "
        "FROM generate_series(1, 1000)",
        "BEGIN; INSERT INTO items VALUES (1);" + annotate("outbox", "x") + "; COMMIT",
    )
    (part,) = source.parts()
    assert [change.key for change in part.changes] == [("1",)]
    assert part.messages == []


@pytest.mark.parametrize("content", ["no json", "[1]", '{"a": NaN}'])
def test_annotations_that_are_no_json_object_are_left_out(
    source: Source, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    if source.version < 14:
        pytest.skip("messages are streamed from Postgres 14 on")
    source.execute(ITEMS)
    source.follow("items")
    prefix = "triggerkit:transaction_annotations:set"
    source.execute(f"BEGIN; {annotate(prefix, content)}; INSERT INTO items VALUES (1); COMMIT")
    with caplog.at_level(logging.WARNING):
        assert annotated(source.parts()) == [("1", None)]
    assert "not a JSON object" in caplog.text


def test_the_confirmed_end_of_a_transaction_is_not_streamed_again(source: Source) -> None:
    source.execute(ITEMS)
    source.follow("items")
    source.execute("INSERT INTO items VALUES (1)")
    [part] = source.parts()
    assert part.end_lsn is not None
    assert part.end_lsn > part.transaction.commit_lsn
    assert source.confirmed_lsn() >= part.end_lsn
    source.execute("INSERT INTO items VALUES (2)")
    source.forget()
    assert [c.key for c in source.changes()] == [("2",)]


def test_what_was_not_confirmed_is_streamed_again_but_what_is_in_the_log_is_passed_over(
    source: Source,
) -> None:
    source.execute(ITEMS)
    source.follow("items")
    source.execute("INSERT INTO items VALUES (1)", "INSERT INTO items VALUES (2)")

    async def read_only() -> list[TransactionPart]:
        async with source.capture() as capture:
            found: list[TransactionPart] = []
            while len(found) < 2:
                found += [part for part in await capture.read() if part.changes]
            return found

    first, second = asyncio.run(read_only())
    again, _ = asyncio.run(read_only())
    assert again.transaction == first.transaction
    source.remember(first)
    [only] = source.parts()
    assert only.transaction == second.transaction


def test_the_confirmed_position_never_goes_back(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.execute(ITEMS)
    source.follow("items")
    source.execute("INSERT INTO items VALUES (1)")

    async def scenario() -> Lsn:
        async with source.capture() as capture:
            await source.read_all(capture)
            before = source.confirmed_lsn()
            capture.confirm(Lsn(1))
            source.execute("INSERT INTO items VALUES (2)")
            await source.read_all(capture)
            assert source.confirmed_lsn() >= before
            return before

    asyncio.run(scenario())


def test_an_idle_database_beside_a_busy_one_does_not_keep_the_wal(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "STATUS_S", 0.05)
    source.execute(ITEMS)
    source.follow("items")
    with source.beside() as busy:
        busy.execute("CREATE TABLE noise AS SELECT generate_series(1, 10000)")
        target = Lsn.parse(source.value("SELECT pg_current_wal_lsn()::text"))

        async def scenario() -> None:
            async with source.capture() as capture, asyncio.timeout(20):
                reading = asyncio.create_task(capture.read())
                while source.confirmed_lsn() < target:
                    if reading.done():
                        reading = asyncio.create_task(capture.read())
                    await asyncio.sleep(0.02)
                reading.cancel()

        asyncio.run(scenario())


def test_what_is_read_ahead_is_confirmed_only_once_it_is_durable(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "STATUS_S", 0.02)
    source.execute(ITEMS, "CREATE TABLE unpublished (id int)")
    source.follow("items")

    async def scenario() -> None:
        async with source.capture() as capture, asyncio.timeout(30):
            source.execute("INSERT INTO items VALUES (1)")
            parts = await until_changed(capture)
            end_lsn = parts[-1].end_lsn
            assert end_lsn is not None
            # Commits of no concern to us, and keepalives with places beyond what was read.
            for _ in range(3):
                source.execute("INSERT INTO unpublished VALUES (1)", "SELECT pg_switch_wal()")
                reading = asyncio.create_task(capture.read())
                await asyncio.wait({reading}, timeout=0.3)
                reading.cancel()
                assert source.confirmed_lsn() < end_lsn
            capture.confirm(end_lsn)
            while source.confirmed_lsn() < end_lsn:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.01)

    asyncio.run(scenario())


async def until_changed(capture: Capture) -> list[TransactionPart]:
    """Read until something changed in a table."""
    while True:
        parts = await capture.read()
        if any(part.changes for part in parts):
            return parts


async def read_for_ever(capture: Capture) -> None:
    while True:
        await capture.read()


def test_the_server_that_asks_for_a_sign_of_life_gets_it_though_nothing_is_confirmed(
    source: Source,
) -> None:
    source.execute(ITEMS)
    source.follow("items")
    # The stream's own timer is at ten seconds: only an answer to the server's question is in time.
    source.execute("ALTER SYSTEM SET wal_sender_timeout = '1s'", "SELECT pg_reload_conf()")
    try:

        async def scenario() -> list[TransactionPart]:
            async with source.capture() as capture:
                waiting = asyncio.create_task(read_for_ever(capture))
                await asyncio.wait({waiting}, timeout=2.5)
                assert not waiting.done()
                waiting.cancel()
                source.execute("INSERT INTO items VALUES (1)")
                return await source.read_all(capture)

        [part] = asyncio.run(scenario())
        assert [c.key for c in part.changes] == [("1",)]
    finally:
        source.execute("ALTER SYSTEM RESET wal_sender_timeout", "SELECT pg_reload_conf()")

"""The heartbeat goes through the WAL and comes back; when it does not, the connection is broken."""

from __future__ import annotations

import asyncio
import os
import signal as signals

import pytest

from tests.capture.rig.source import SLOT, Source
from triggerkit.replication import heartbeat, wal_marker
from triggerkit.replication.capture import Capture
from triggerkit.replication.connection import LineDead

ITEMS = "CREATE TABLE items (id int PRIMARY KEY)"


@pytest.fixture
def followed(source: Source, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A source whose heart beats fast."""
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.05)
    monkeypatch.setattr(heartbeat, "PATIENCE_S", 1.0)
    source.execute(ITEMS)
    source.follow("items")
    return source


async def beats(capture: Capture, count: int) -> None:
    """Read until so many heartbeats are back, and confirm them."""
    while count > 0:
        for part in await capture.read():
            count -= sum(m.prefix == heartbeat.PREFIX for m in part.messages)
            if part.end_lsn is not None:
                capture.confirm(part.end_lsn)


def test_heartbeats_come_back_while_nothing_else_happens(followed: Source) -> None:
    async def scenario() -> None:
        before = followed.confirmed_lsn()
        async with followed.capture() as capture, asyncio.timeout(20):
            await beats(capture, 5)
        assert followed.confirmed_lsn() > before

    asyncio.run(scenario())


def test_a_stream_whose_heartbeat_is_missing_is_broken(followed: Source) -> None:
    async def scenario() -> None:
        async with followed.capture() as capture, asyncio.timeout(20):
            await beats(capture, 1)
            sender = followed.value(
                f"SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{SLOT}'"
            )
            os.kill(sender, signals.SIGSTOP)
            try:
                with pytest.raises(LineDead, match="a heartbeat has not come back"):
                    await beats(capture, 1000)
            finally:
                os.kill(sender, signals.SIGCONT)

    asyncio.run(scenario())


def test_a_long_transaction_that_is_being_decoded_is_no_missing_heartbeat(
    followed: Source,
) -> None:
    # Read by nobody but passed over: the server tells only how far it has come.
    followed.execute("CREATE TABLE noise (t text)")

    async def scenario() -> None:
        async with followed.capture() as capture, asyncio.timeout(60):
            await beats(capture, 1)
            for _ in range(3):
                await asyncio.to_thread(
                    followed.execute,
                    "INSERT INTO noise SELECT repeat('x', 100) FROM generate_series(1, 50000)",
                )
            await beats(capture, 3)

    asyncio.run(scenario())


def test_a_mark_that_is_passed_but_not_delivered_is_missing(followed: Source) -> None:
    if followed.version >= wal_marker.MESSAGES_FROM // 10000:
        pytest.skip("messages cannot be left out of a publication")
    followed.execute("ALTER PUBLICATION triggerkit DROP TABLE triggerkit.signal")

    async def scenario() -> None:
        async with followed.capture() as capture, asyncio.timeout(20):
            with pytest.raises(LineDead, match="a heartbeat has not come back"):
                await beats(capture, 1)

    asyncio.run(scenario())


def test_a_heartbeat_that_cannot_be_sent_is_told_of_and_the_stream_goes_on(
    followed: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    if followed.version >= wal_marker.MESSAGES_FROM // 10000:
        pytest.skip("everybody may send messages")
    followed.execute("ALTER TABLE triggerkit.signal ADD CHECK (prefix <> 'triggerkit.heartbeat')")

    async def scenario() -> None:
        told = asyncio.Event()
        monkeypatch.setattr(heartbeat.logger, "warning", lambda *_: told.set())
        async with followed.capture() as capture, asyncio.timeout(20):
            await told.wait()
            followed.execute("INSERT INTO items VALUES (1)")
            await followed.read_all(capture)

    asyncio.run(scenario())

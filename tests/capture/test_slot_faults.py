"""Why a stream cannot begin or go on: each fault is a SlotError that names its remedy."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.capture.rig.source import SLOT, Source
from triggerkit.errors import PreflightFailed, SlotError
from triggerkit.lsn import Lsn
from triggerkit.replication.capture import Capture
from triggerkit.replication.slot.replication_slot import PUBLICATION, identify, require_logical
from triggerkit.replication.slot.source_server import Server
from triggerkit.state.connect import connect

ITEMS = "CREATE TABLE items (id int PRIMARY KEY)"


@pytest.fixture
def followed(source: Source) -> Source:
    """A source with a table, a publication and a slot."""
    source.execute(ITEMS)
    source.follow("items")
    return source


def error_of(source: Source, *, after: int = 0, known: Server | None = None) -> SlotError:
    """The error that the stream of the slot begins or ends with."""

    async def stream() -> None:
        async with (
            asyncio.timeout(30),
            Capture.open(source.url, SLOT, PUBLICATION, after, known) as capture,
        ):
            while True:
                await capture.read()

    with pytest.raises(SlotError) as caught:
        asyncio.run(stream())
    return caught.value


def test_a_slot_in_use_names_the_process_that_uses_it(followed: Source) -> None:
    async def scenario() -> str:
        async with followed.capture():
            with pytest.raises(SlotError) as caught:
                async with followed.capture():
                    pass
            pid = followed.value(
                f"SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{SLOT}'"
            )
            assert f"process {pid} of the server streams from it; stop that" in str(caught.value)
            return caught.value.slot_name

    assert asyncio.run(scenario()) == SLOT


def test_a_dropped_slot_is_to_be_made_anew_by_apply(followed: Source) -> None:
    followed.execute(f"SELECT pg_drop_replication_slot('{SLOT}')")
    text = str(error_of(followed))
    assert f'replication slot {SLOT}: replication slot "{SLOT}" does not exist' in text
    assert "run `triggerkit apply` to create a new one" in text
    assert "read the tables again" in text


def test_a_lost_slot_is_to_be_replaced(followed: Source) -> None:
    if followed.version < 13:
        pytest.skip("Postgres 12 keeps the WAL for slots without a limit")
    followed.server.restart(
        max_slot_wal_keep_size="1MB", wal_keep_size="0", max_wal_size="32MB", min_wal_size="32MB"
    )
    followed.reconnect()
    try:
        lose(followed)
        text = str(error_of(followed))
        assert "it is lost" in text
        assert f"SELECT pg_drop_replication_slot('{SLOT}')" in text
        assert "`triggerkit apply`" in text
    finally:
        followed.server.restart()


def lose(source: Source) -> None:
    """Write so much that the server removes the WAL that the slot needs."""
    query = f"SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{SLOT}'"
    while source.value(query) != "lost":
        source.execute("CREATE TABLE IF NOT EXISTS noise (t text)")
        source.execute("INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
        source.execute("SELECT pg_switch_wal()", "CHECKPOINT", "TRUNCATE noise")


def test_a_publication_that_was_dropped_means_to_replace_the_slot(followed: Source) -> None:
    followed.execute("INSERT INTO items VALUES (1)", f"DROP PUBLICATION {PUBLICATION}")
    followed.execute("INSERT INTO items VALUES (2)")
    text = str(error_of(followed))
    assert f"publication {PUBLICATION} was missing when changes were written" in text
    assert f"SELECT pg_drop_replication_slot('{SLOT}')" in text
    # What was written in between is not passed over because of a publication that is new.
    confirmed = followed.confirmed_lsn()
    followed.execute(f"CREATE PUBLICATION {PUBLICATION} FOR TABLE items")
    assert "does not bring them back" in str(error_of(followed))
    assert followed.confirmed_lsn() == confirmed


def test_a_publication_that_is_dropped_while_it_is_streamed_ends_the_stream(
    followed: Source,
) -> None:
    async def scenario() -> str:
        async with followed.capture() as capture, asyncio.timeout(30):
            followed.execute("INSERT INTO items VALUES (1)")
            await followed.read_all(capture)
            followed.execute(f"DROP PUBLICATION {PUBLICATION}", "INSERT INTO items VALUES (2)")
            with pytest.raises(SlotError) as caught:
                await read_for_ever(capture)
            return str(caught.value)

    assert "was missing when changes were written" in asyncio.run(scenario())


async def read_for_ever(capture: Capture) -> None:
    while True:
        await capture.read()


def test_a_server_that_is_not_logical_any_more_is_to_be_set_so(followed: Source) -> None:
    # With the slot the server would not even start.
    followed.execute(f"SELECT pg_drop_replication_slot('{SLOT}')")
    followed.server.restart(wal_level="replica")
    try:
        text = str(error_of(followed))
        assert "wal_level is replica, not logical" in text
        assert "ALTER SYSTEM SET wal_level = 'logical'" in text

        async def require() -> None:
            async with await connect(followed.url, "test") as connection:
                await require_logical(connection)

        with pytest.raises(PreflightFailed, match="wal_level is replica"):
            asyncio.run(require())
    finally:
        followed.server.restart()


def present(source: Source) -> Server:
    async def ask() -> Server:
        async with await connect(source.url, "test") as connection:
            identity = await identify(connection)
            return Server(identity.system_identifier, identity.timeline)

    return asyncio.run(ask())


def test_another_server_behind_the_url_is_refused(followed: Source) -> None:
    other = Server("7000000000000000000", 1)
    text = str(error_of(followed, known=other))
    assert "DATABASE_URL leads to another server" in text
    assert "`triggerkit apply`" in text


def test_a_standby_that_took_over_is_followed_if_it_has_all_that_the_log_has(
    followed: Source,
) -> None:
    before = present(followed)
    followed.execute("INSERT INTO items VALUES (1)")
    [part] = followed.parts()
    followed.server.promote()
    followed.reconnect()
    try:
        assert present(followed).timeline == before.timeline + 1
        followed.execute("INSERT INTO items VALUES (2)")

        async def stream() -> list[tuple[str, ...]]:
            async with followed.capture(before) as capture:
                assert capture.server == Server(before.system_identifier, before.timeline + 1)
                return [c.key for p in await followed.read_all(capture) for c in p.changes]

        assert asyncio.run(stream()) == [("2",)]
        # A commit that begins where the timelines part is not on the new one.
        for parted in (left_at(followed), Lsn(part.transaction.commit_lsn + 2**40)):
            text = str(error_of(followed, known=before, after=parted))
            assert "lacks transactions that the log has" in text
        assert "`triggerkit apply`" in text
    finally:
        followed.server.restart()


async def confirm_for_ever(capture: Capture) -> None:
    while True:
        for part in await capture.read():
            if part.end_lsn is not None:
                capture.confirm(part.end_lsn)


def left_at(source: Source) -> Lsn:
    """Where the present timeline left the one before."""
    history = source.value(
        "SELECT pg_read_file(format('pg_wal/%s.history', lpad(to_hex(timeline_id), 8, '0'))) "
        "FROM pg_control_checkpoint()"
    )
    return Lsn.parse(history.splitlines()[-1].split()[1])


def test_a_server_that_stops_does_not_wait_for_a_stream_that_is_idle(followed: Source) -> None:
    async def scenario() -> None:
        async with Capture.open(followed.url, SLOT, PUBLICATION, 0) as capture:
            reading = asyncio.create_task(confirm_for_ever(capture))
            followed.execute("CREATE TABLE noise (t text)", "INSERT INTO noise VALUES ('x')")
            began = time.monotonic()
            await asyncio.to_thread(followed.server.restart)
            assert time.monotonic() - began < 5
            await asyncio.gather(reading, return_exceptions=True)

    asyncio.run(scenario())
    followed.reconnect()


def test_a_role_that_may_not_stream_is_told_the_statement(followed: Source) -> None:
    followed.execute("CREATE ROLE reader LOGIN")
    try:
        url = followed.url.replace("user=postgres", "user=reader")

        async def stream() -> None:
            async with Capture.open(url, SLOT, PUBLICATION, 0):
                pass

        with pytest.raises(SlotError, match="ALTER ROLE … REPLICATION"):
            asyncio.run(stream())
    finally:
        followed.execute("DROP ROLE reader")

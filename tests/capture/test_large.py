"""Transactions and values larger than any buffer, in bounded memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.capture.rig.source import END, Source
from triggerkit.replication import wal_marker
from triggerkit.replication.connection import BATCH_BYTES
from triggerkit.state.connect import connect

MIB = 1024 * 1024


class Peak:
    """The most memory this process has held since it was made."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self._before = self._read("VmRSS")

    def grown_bytes(self) -> int:
        """How much more that was than at the beginning."""
        return self._read("VmHWM") - self._before

    def _read(self, name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        [line] = [line for line in lines if line.startswith(name)]
        return int(line.split()[1]) * 1024


async def count_rows(source: Source) -> tuple[int, int]:
    """How many changes come until all is read, and the most of them that are held at once."""
    total = most = 0
    async with source.capture() as capture, await connect(source.url, "test") as connection:
        await wal_marker.emit(connection, END, "large")
        async with asyncio.timeout(100):
            while True:
                parts = await capture.read()
                held = sum(len(part.changes) for part in parts)
                most = max(most, held)
                for part in parts:
                    if part.changes:
                        assert part.first_idx == total
                    total += len(part.changes)
                    if part.end_lsn is not None:
                        capture.confirm(part.end_lsn)
                if any(m.prefix == END for part in parts for m in part.messages):
                    return total, most


def test_a_large_transaction_comes_in_parts_of_bounded_size(source: Source) -> None:
    source.execute("CREATE TABLE items (id int PRIMARY KEY, name text)")
    source.follow("items")
    source.execute("INSERT INTO items SELECT i, 'a name' FROM generate_series(1, 100000) i")
    total, most = asyncio.run(count_rows(source))
    assert total == 100_000
    # A row's frame is longer than 50 bytes.
    assert most <= BATCH_BYTES / 50


@pytest.mark.timeout(300)
def test_a_million_rows_in_one_transaction_do_not_grow_the_process(source: Source) -> None:
    if source.version != 18:
        pytest.skip("once is enough: on Postgres 18")
    source.execute("CREATE TABLE items (id int PRIMARY KEY, name text)")
    source.follow("items")
    source.execute("INSERT INTO items SELECT i, 'a name' FROM generate_series(1, 1000000) i")
    peak = Peak()
    total, _ = asyncio.run(count_rows(source))
    assert total == 1_000_000
    assert peak.grown_bytes() < 96 * MIB


def test_a_value_of_many_megabytes_is_captured_whole(source: Source) -> None:
    source.execute("CREATE TABLE items (id int PRIMARY KEY, name text)")
    source.follow("items")
    source.execute(
        f"INSERT INTO items SELECT i, repeat('x', {8 * MIB}) FROM generate_series(1, 4) i"
    )
    changes = source.changes()
    assert [len(str((c.record or {})["name"])) for c in changes] == [8 * MIB] * 4

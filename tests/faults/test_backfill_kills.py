"""The stream is killed again and again while it reads a table that changes under its hands."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from tests.acceptance.project import eventually
from tests.faults.rig import truth
from tests.faults.rig.checker import check, explain
from tests.faults.rig.history import Bounds
from tests.faults.rig.processes import Stream
from tests.faults.rig.scenario import IN_FLIGHT, OBSERVED, Scenario
from triggerkit.consumers.backfill.store import BackfillStore
from triggerkit.state.connect import connect

ROWS = 100_000
BATCH_SIZE = 100
KILLS = 20

#: So that the reading outlasts the kills.
ROWS_PER_S = 3_000

#: Keys after the backfill's place that are changed while they are about to be read.
WINDOW = 1_500

#: Seconds after which all must have arrived, the rest of the reading included.
DRAIN_S = 100

_PLACE = "SELECT coalesce((cursor -> 'after' ->> 0)::bigint, 0) FROM triggerkit.backfills"


class ChasingWorkload(truth.Workload):
    """Changes rows just ahead of where the backfill is: those that it is about to read."""

    def _key(self, connection: truth.Connection, choose: random.Random) -> int:
        row = connection.execute(_PLACE).fetchone()
        place: int = row[0] if row else 0
        return place + choose.randint(1, WINDOW)


def backfill(scenario: Scenario) -> dict[str, Any]:
    """The one backfill's state."""
    with scenario.connect() as connection:
        row = connection.execute("SELECT to_jsonb(b) FROM triggerkit.backfills b").fetchone()
    assert row is not None
    found: dict[str, Any] = row[0]
    return found


def kill_while_reading(scenario: Scenario, stream: Stream, choose: random.Random) -> bool:
    """SIGKILL some time after the stream read on; whether the backfill was active then."""
    before = backfill(scenario)["rows_read"]
    eventually(lambda: backfill(scenario)["rows_read"] > before, 20, "rows read after a restart")
    time.sleep(choose.uniform(0, 0.5))
    stream.kill()
    now = backfill(scenario)
    print(f"killed at {now['rows_read']:,} rows, {now['state']}")
    return bool(now["state"] == "active")


@pytest.mark.timeout(300)
def test_a_backfill_survives_twenty_kills_under_live_changes(scenario: Scenario) -> None:
    seed = random.randrange(2**32)
    print(f"kill seed {seed}")
    choose = random.Random(seed)
    scenario.prepare(ROWS, paths=[OBSERVED], batch_size=BATCH_SIZE, sample_s=1.0)
    with scenario.connect() as connection:
        connection.execute("UPDATE triggerkit.backfills SET rows_per_s = %s", [ROWS_PER_S])
    chasing = ChasingWorkload(scenario.url, seed, writers=2, per_second=150)
    with Stream(scenario.folder, ["triggerkit", "stream"], scenario.environment) as stream:
        chasing.start()
        try:
            with scenario.changing(seed, per_second=100, keys=ROWS + 20_000):
                while_active = sum(
                    kill_while_reading(scenario, stream, choose) for _ in range(KILLS)
                )
        finally:
            chasing.stop()
        drained_s = scenario.drain(DRAIN_S)
    assert while_active >= 15
    bounds = Bounds(repeats=KILLS * 8 * BATCH_SIZE, drain_s=DRAIN_S)
    history = scenario.history(OBSERVED, drained_s)
    found = check(history, bounds)
    print(f"{len(history.committed) - ROWS:,} changes, {len(history.delivered):,} delivered")
    assert not found, f"{explain(found)}\n{stream.explain()}"
    final = backfill(scenario)
    dropped = final["rows_read"] - final["rows_logged"]
    print(f"{dropped} rows were dropped for a newer change, drained in {drained_s:.1f} s")
    assert final["state"] == "completed"
    assert dropped > 0, "no change came between a chunk and its mark: nothing was put to the test"


@pytest.mark.parametrize("action", ["pause", "cancel"])
def test_a_kill_when_it_is_told_to_stop(scenario: Scenario, action: str) -> None:
    """The state says so, and the stream dies before, while or after it has closed the span."""
    seed = random.randrange(2**32)
    choose = random.Random(seed)
    print(f"kill seed {seed}")
    scenario.prepare(5_000, paths=[OBSERVED])
    with scenario.connect() as connection:
        connection.execute("UPDATE triggerkit.backfills SET rows_per_s = 1000")
    with Stream(scenario.folder, ["triggerkit", "stream"], scenario.environment) as stream:
        with scenario.changing(seed, per_second=100, keys=6_000):
            for _ in range(4):
                assert kill_while_reading(scenario, stream, choose)
                eventually(lambda: backfill(scenario)["state"] == "active", 5, "it goes on")
                told = change(scenario, action)
                time.sleep(choose.uniform(0, 0.02))
                stream.kill()
                eventually(lambda: backfill(scenario)["last_position"], 20, "a closed span")
                assert backfill(scenario)["last_position"] >= last_read(scenario)
                if action == "cancel":
                    break
                assert backfill(scenario)["rows_read"] >= told
                change(scenario, "resume")
        drained_s = None if action == "cancel" else scenario.drain(40)
    if action == "cancel":
        assert backfill(scenario)["state"] == "canceled"
        return
    found = check(scenario.history(OBSERVED, drained_s), Bounds(repeats=8 * IN_FLIGHT, drain_s=40))
    assert not found, f"{explain(found)}\n{stream.explain()}"


def change(scenario: Scenario, action: str) -> int:
    """Pause, resume or cancel the backfill; the rows it had read before."""

    async def connected() -> None:
        async with await connect(scenario.url, "test") as state:
            await getattr(BackfillStore(state, "test"), action)(backfill(scenario)["id"])

    before: int = backfill(scenario)["rows_read"]
    asyncio.run(connected())
    return before


def last_read(scenario: Scenario) -> int:
    """The last position that a row of the backfill has in the log."""
    with scenario.connect() as connection:
        row = connection.execute(
            "SELECT max(position) FROM triggerkit.events WHERE backfill_id IS NOT NULL"
        ).fetchone()
    assert row is not None
    return int(row[0])

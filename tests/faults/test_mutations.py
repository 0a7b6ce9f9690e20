"""The checker on the real stream: it finds each thing that is broken, and nothing else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.acceptance.project import eventually
from tests.faults.rig.checker import Rule, Violation, check, explain
from tests.faults.rig.history import Bounds
from tests.faults.rig.mutant import KILLS, KILLS_VARIABLE
from tests.faults.rig.processes import Stream
from tests.faults.rig.scenario import IN_FLIGHT, OBSERVED, Scenario

#: The rules of which one at least must report a mutation: what is confirmed too early is seen in
#: the samples of the slot, and lost only if a kill comes just then.
CAUGHT_BY: dict[str, set[Rule]] = {
    "confirm_before_persist": {"loss", "ack safety"},
    "confirm_wal_end_in_flight": {"loss", "ack safety"},
    "identify_by_lsn": {"phantom"},
    "no_touched_keys": {"rows"},
    "unchanged_is_null": {"phantom"},
}


def violations(scenario: Scenario, mutation: str, folder: Path) -> list[Violation]:
    """Run the faults with a mutation; what the checker finds."""
    kills = folder / "kills"
    kills.mkdir()
    scenario.prepare(rows_before=300, paths=[OBSERVED])
    environment = {**scenario.environment, KILLS_VARIABLE: str(kills)}
    with Stream(scenario.folder, ["tests.faults.rig.mutant", mutation], environment):
        seed = random.randrange(2**32)
        with scenario.changing(seed, per_second=150, keys=600):
            eventually(lambda: len(list(kills.iterdir())) == KILLS, 40, "all kills")
        drained_s = scenario.drain(20)
    bounds = Bounds(repeats=KILLS * IN_FLIGHT, drain_s=20)
    return check(scenario.history(OBSERVED, drained_s), bounds)


def test_the_product_passes(scenario: Scenario, tmp_path: Path) -> None:
    found = violations(scenario, "nothing", tmp_path)
    assert not found, explain(found) + (scenario.folder / "stream.log").read_text()[-3000:]


@pytest.mark.parametrize("mutation", CAUGHT_BY)
def test_a_mutation_is_caught(mutation: str, scenario: Scenario, tmp_path: Path) -> None:
    found = violations(scenario, mutation, tmp_path)
    print(explain(found))
    assert CAUGHT_BY[mutation] & {v.rule for v in found}


def test_an_unrelated_update_bears_the_row_that_lost_its_place_in_a_chunk(
    scenario: Scenario, tmp_path: Path
) -> None:
    """The update of a row read but not yet in the log changes no column that the consumer names."""
    (tmp_path / "kills").mkdir()
    environment = {**scenario.environment, KILLS_VARIABLE: str(tmp_path / "kills")}
    scenario.prepare(rows_before=300, paths=[OBSERVED], when_changed=["body"])
    with Stream(scenario.folder, ["tests.faults.rig.mutant", "nothing"], environment) as stream:
        drained_s = scenario.drain(20)
    history = scenario.history(OBSERVED, drained_s)
    found = check(history, Bounds(repeats=KILLS * IN_FLIGHT))
    assert {c.op for c in history.committed if c.required} == {"insert", "update", "delete"}
    assert not found, f"{explain(found)}\n{stream.explain()}"

"""A bulk whose `serve` is killed amid a step: another one goes on, and no run is replayed twice."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.acceptance.project import eventually
from tests.acceptance.running_system import running_system
from tests.servers import Servers

_REPLAYS = """
SELECT count(*), count(DISTINCT replay_of) FROM triggerkit.runs WHERE replay_of IS NOT NULL
"""
_BULK = "SELECT state, looked, changed, refused FROM triggerkit.bulks"


@pytest.mark.timeout(240)
def test_runs_that_a_killed_serve_had_replayed_are_not_replayed_again(
    servers: Servers, tmp_path: Path
) -> None:
    with running_system(servers, tmp_path) as system:
        system.be_well()
        for name in ("one", "two", "three"):
            system.mended(system.insert(name))
        [(runs,)] = system.execute("SELECT count(*) FROM triggerkit.runs")
        system.stop("serve")
        fired = tmp_path / "fired"
        system.start("serve", TRIGGERKIT_FAIL_POINT=f"run-inserted={fired}")
        system.execute(
            "INSERT INTO triggerkit.bulks (action, filter, actor, expected) "
            "VALUES ('replay runs', jsonb_build_object('until', now()), 'test', %s)",
            runs,
        )
        assert system.processes["serve"].wait(30) == -signal.SIGKILL
        assert system.execute(_REPLAYS) == [(runs, runs)]
        assert system.execute(_BULK) == [("active", 0, 0, 0)]
        system.start("serve")
        eventually(lambda: system.execute(_BULK)[0][0] == "done", 30, "the end of the bulk")
        assert system.execute(_BULK) == [("done", runs, runs, 0)]
        assert system.execute(_REPLAYS) == [(runs, runs)]
        waits = "SELECT count(*) FROM triggerkit.runs WHERE status <> 'completed'"
        eventually(lambda: system.execute(waits) == [(0,)], 60, "the runs that were not pushed")

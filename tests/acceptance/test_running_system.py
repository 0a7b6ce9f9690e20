"""The system that tests start leaves no process behind."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.running_system import running_system
from tests.servers import Servers


def test_a_process_takes_the_place_of_one_that_has_its_name(
    servers: Servers, tmp_path: Path
) -> None:
    with running_system(servers, tmp_path) as system:
        system.start_dashboard()
        first = system.processes["dashboard"]
        system.start_dashboard()
        started = [first, *system.processes.values()]
        assert first.poll() is not None
    assert all(process.poll() is not None for process in started)

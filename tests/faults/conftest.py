"""Fixtures of the fault tests, and their marker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.rig.project import Via
from tests.faults.rig.scenario import Scenario
from tests.servers import Servers


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "soak: takes minutes; only `make soak` runs it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "soak" in (config.option.markexpr or ""):
        return
    soaking = [item for item in items if item.get_closest_marker("soak")]
    if soaking:
        config.hook.pytest_deselected(items=soaking)
        items[:] = [item for item in items if item not in soaking]


@pytest.fixture
def scenario(
    request: pytest.FixtureRequest, tmp_path: Path, database_url: str, servers: Servers
) -> Iterator[Scenario]:
    """A project on a database of its own, its `dev` not yet started; a parameter says by which way
    its task gets messages."""
    via: Via = getattr(request, "param", "webhook")
    scenario = Scenario(tmp_path, database_url, servers.redis.url, via)
    yield scenario
    scenario.close()
    # A replication slot keeps its database from being dropped.
    with scenario.connect() as connection:
        connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            "WHERE slot_name = 'truth'"
        )

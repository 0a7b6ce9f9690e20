"""`dev` over a RabbitMQ of the user's own: it brings no Redis, and tells when it is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.project import eventually, run_command
from tests.acceptance.small import SmallProject
from tests.rabbitmq import RabbitmqServer

#: Of the server's URL what nobody may read.
PASSWORD = "guest:guest"


@pytest.fixture
def project(tmp_path: Path, rabbitmq_server: RabbitmqServer) -> Iterator[SmallProject]:
    project = SmallProject(tmp_path)
    (tmp_path / ".env").write_text(f"TRIGGERKIT_BROKER_URL={rabbitmq_server.url}\n")
    project.dev.start()
    yield project
    project.dev.close()


def told(project: SmallProject, process: str) -> list[str]:
    """What a process told of its connection to RabbitMQ."""
    lines = project.events("connection", process=process, service="RabbitMQ")
    return [line["state"] for line in lines]


def test_dev_over_rabbitmq(project: SmallProject, rabbitmq_server: RabbitmqServer) -> None:
    assert project.output_of_new_row() == "first"
    assert [p["name"] for p in project.status()["processes"]].count("redis") == 0
    with rabbitmq_server.away():
        for process in ("serve", "worker"):
            eventually(lambda p=process: told(project, p) == ["lost"], 20, process)  # type: ignore[misc]
        missed = project.insert()
    for process in ("serve", "worker"):
        eventually(lambda p=process: told(project, p) == ["lost", "restored"], 20, process)  # type: ignore[misc]
    eventually(lambda: project.outputs(missed), 20, "the run of the row inserted meanwhile")
    checked = run_command(project.folder, "triggerkit", "check")
    assert "✓ rabbitmq reachable: 127.0.0.1" in checked.stdout
    assert "redis" not in checked.stdout
    assert project.dev.interrupt() == 0
    assert PASSWORD not in checked.stdout + project.dev.explain()

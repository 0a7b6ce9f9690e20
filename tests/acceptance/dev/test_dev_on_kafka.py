"""`triggerkit dev` whose log is on Kafka: what delivers is a process of its own."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.acceptance.project import eventually
from tests.acceptance.small import SETUP, SmallProject
from tests.kafka import KafkaServer
from tests.offered import python_path


@pytest.fixture
def project(
    tmp_path: Path, kafka_server: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> SmallProject:
    """A project of one task, whose log is on Kafka."""
    monkeypatch.setenv("PYTHONPATH", python_path())
    settings = {"TRIGGERKIT_LOG": "kafka", **kafka_server.settings()}
    (tmp_path / ".env").write_text("".join(f"{k}={v}\n" for k, v in settings.items()))
    project = SmallProject(tmp_path)
    full = '    connection.execute("ALTER TABLE items REPLICA IDENTITY FULL")\n'
    (tmp_path / "prepare.py").write_text(SETUP + full)
    return project


def test_deliveries_are_a_child_of_their_own(
    project: SmallProject,
) -> None:
    project.dev.start(120)
    try:
        assert project.output_of_new_row(60) == "first"
        assert project.pid_of("deliver") is not None
        with psycopg.connect(str(project.status()["database_url"])) as connection:
            assert connection.execute("SELECT count(*) FROM triggerkit.events").fetchone() == (0,)
        since = len(project.dev.lines)
        project.write_task("second")
        eventually(lambda: project.said("reloaded in", since), 30, "a reload")
        assert project.output_of_new_row(60) == "second"
        assert project.dev.interrupt() == 0
    finally:
        project.dev.close()

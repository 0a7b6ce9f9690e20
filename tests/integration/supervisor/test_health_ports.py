"""`stream` and `worker` on a port of their own: alive, ready, what they miss, and how they end."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.project import eventually
from tests.command_process import CommandProcess
from tests.conftest import WEBHOOK_SECRET
from tests.ports import free_port
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

TASKS = """
import time
from pathlib import Path
from triggerkit import task

@task
def wait(payload: dict) -> None:
    Path("begun").touch()
    time.sleep(payload["seconds"])
    Path("done").touch()
"""


@pytest.fixture
def given(settings: Settings) -> dict[str, str]:
    assert settings.database_url
    assert settings.redis_url
    return {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "TRIGGERKIT_WEBHOOK_SECRET": WEBHOOK_SECRET,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "triggerkit.toml").write_text('tasks = ["tasks"]\n')
    (tmp_path / "tasks.py").write_text(TASKS)
    return tmp_path


@pytest.fixture
def applied(settings: Settings) -> None:
    asyncio.run(make_consumer(settings))


async def make_consumer(settings: Settings) -> None:
    async with (
        await connect(settings.source_dsn, "test") as source,
        await connect(settings.state_dsn, "test") as state,
    ):
        await source.execute("CREATE TABLE public.items (id bigint PRIMARY KEY)")
        declared = [Declared("items", changes("public.items"), "/push")]
        await apply(source, state, declared, "http://127.0.0.1:1")


def command(
    folder: Path, name: str, words: list[str], given: dict[str, str], **more: str
) -> CommandProcess:
    return CommandProcess(folder, name, ["triggerkit", *words], {**given, **more}, free_port())


def test_a_stream_waits_for_apply_and_says_so(
    folder: Path, given: dict[str, str], settings: Settings
) -> None:
    with command(folder, "stream", ["stream"], given) as stream:
        stream.until_said("waiting for: triggerkit apply")
        assert stream.probe("/healthz") == (200, {"alive": True})
        status, said = stream.probe("/readyz")
        assert (status, said["missing"]) == (503, ["startup", "triggerkit apply"])
        asyncio.run(make_consumer(settings))
        assert stream.until_ready()["role"] == "active"


@pytest.mark.usefixtures("applied")
def test_a_stream_that_stands_by_is_ready_and_takes_over(
    folder: Path, given: dict[str, str]
) -> None:
    with command(folder, "first", ["stream"], given) as first:
        assert first.until_ready()["role"] == "active"
        with command(folder, "second", ["stream"], given) as second:
            assert second.until_ready()["role"] == "standby"
            first.terminate()
            assert first.wait() == 0
            eventually(lambda: second.probe("/readyz")[1].get("role") == "active", 20, "it leads")


@pytest.mark.usefixtures("applied")
def test_a_stream_that_is_stopped_is_not_alive(folder: Path, given: dict[str, str]) -> None:
    with command(folder, "stream", ["stream"], given) as stream:
        stream.until_ready()
        stream.process.send_signal(signal.SIGSTOP)
        assert stream.probe("/healthz") == (0, {})
        stream.process.send_signal(signal.SIGCONT)
        assert stream.until_ready()["role"] == "active"


def test_a_port_in_use_is_one_error(folder: Path, given: dict[str, str]) -> None:
    with command(folder, "first", ["worker"], given) as first:
        first.until_ready()
        for words in (["worker"], ["stream"]):
            again = CommandProcess(
                folder, f"again-{words[0]}", ["triggerkit", *words], given, first.health_port
            )
            with again:
                assert again.wait() == 3
                assert "choose another with TRIGGERKIT_HEALTH_PORT" in again.said()


def test_a_worker_is_ready_once_its_processes_are(folder: Path, given: dict[str, str]) -> None:
    with command(folder, "worker", ["worker", "--processes", "2"], given) as worker:
        assert worker.until_ready() == {"ready": True, "missing": []}
        assert worker.probe("/healthz") == (200, {"alive": True})
        worker.terminate()
        assert worker.wait() == 0


def trigger(folder: Path, given: dict[str, str], seconds: float) -> None:
    words = ["triggerkit", "trigger", "wait", "--payload", f'{{"seconds": {seconds}}}']
    with CommandProcess(folder, "trigger", words, given) as triggered:
        assert triggered.wait() == 0, triggered.said()


def test_a_worker_that_drains_is_not_ready_and_finishes_what_executes(
    folder: Path, given: dict[str, str]
) -> None:
    with command(folder, "worker", ["worker"], given) as worker:
        worker.until_ready()
        trigger(folder, given, 2)
        eventually((folder / "begun").exists, 20, "the run begins")
        worker.terminate()
        eventually(lambda: worker.probe("/readyz")[0] == 503, 5, "it is not ready any more")
        assert worker.probe("/readyz")[1]["missing"] == ["stopping"]
        assert worker.probe("/healthz")[0] == 200
        assert worker.wait() == 0
    assert (folder / "done").exists()


def test_a_worker_ends_within_its_grace_and_another_takes_the_run_over(
    folder: Path, given: dict[str, str], database_url: str
) -> None:
    with command(folder, "worker", ["worker"], given, TRIGGERKIT_GRACE="1s") as worker:
        worker.until_ready()
        trigger(folder, given, 60)
        eventually((folder / "begun").exists, 20, "the run begins")
        (folder / "begun").unlink()
        asked_at = time.monotonic()
        worker.terminate()
        assert worker.wait() == 0
        assert 0.9 < time.monotonic() - asked_at < 6
        assert "other workers take them over" in worker.said()
    with command(folder, "other", ["worker"], given, TRIGGERKIT_GRACE="1s") as other:
        eventually((folder / "begun").exists, 20, "the other one takes it over")
        with psycopg.connect(database_url) as connection:
            found = connection.execute("SELECT status, crashes FROM triggerkit.runs").fetchall()
        assert found == [("executing", 0)], "its worker was asked to end: the run is not to blame"
        assert other.process.poll() is None

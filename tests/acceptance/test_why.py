"""Twelve causes planted in a running system: `status` leads to each, `why` names and mends it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import orjson
import psycopg
import pytest

from tests.acceptance.project import eventually
from tests.acceptance.running_system import System
from tests.conftest import WEBHOOK_SECRET
from tests.servers import Servers
from triggerkit.settings import Settings

#: Seconds after the plant by which both commands have said what it is; of a worker that died
#: without a word, as if on another machine.
TOLD_S = 5.0
DEAD_WORKER_S = 15.0


@pytest.fixture(scope="module")
def system(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The system, running; every test leaves it so."""
    url = servers.new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO triggerkit.installation DEFAULT VALUES")
    settings = Settings.parse(
        {
            "DATABASE_URL": url,
            "REDIS_URL": servers.redis.url,
            "TRIGGERKIT_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "TRIGGERKIT_SECRET_KEY": "a management key for the tests only",
            "TRIGGERKIT_ALLOW_NETWORKS": "127.0.0.0/8,::1/128",
        }
    )
    system = System(tmp_path_factory.mktemp("system"), settings.environment())
    try:
        applied = system.command("apply")
        assert applied.returncode == 0, applied.stderr
        for name in ("serve", "worker", "stream"):
            system.start(name)
        yield system
    finally:
        system.stop_all()
        servers.drop_database(url)


@pytest.fixture(autouse=True)
def well(system: System) -> None:
    """Nothing is planted yet: a row has its effect, and `status` is ready."""
    system.behave("well")
    system.mended(system.insert("first"))
    assert system.status().startswith("ready"), system.status()


def test_the_slot_was_dropped(system: System) -> None:
    system.execute(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
        "WHERE database = current_database() AND active_pid IS NOT NULL"
    )
    eventually(lambda: dropped(system), 10, "a slot that is dropped")
    key = system.insert("one")
    answer = system.told(key, "slot_missing", "is gone", TOLD_S)
    system.type(answer["remedy"])
    system.mended(key, 30)


def dropped(system: System) -> bool:
    try:
        system.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            "WHERE database = current_database()"
        )
    except psycopg.errors.ObjectInUse:
        return False
    return system.execute(
        "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"
    ) == [(0,)]


def test_the_table_is_not_published(system: System) -> None:
    system.execute("ALTER PUBLICATION triggerkit DROP TABLE public.items")
    key = system.insert("one")
    answer = system.told(key, "not_published", "lacks public.items", TOLD_S)
    system.type(answer["remedy"])
    system.mended(key, 30)


def test_the_row_is_filtered(system: System) -> None:
    key = system.insert("draft")
    answer = system.told(key, "filtered", "only rows with name != draft", TOLD_S)
    assert "name != draft" in answer["conclusion"]
    assert answer["remedy"] is None


def test_the_route_refuses_the_secret(system: System) -> None:
    system.stop("serve")
    system.start("serve", TRIGGERKIT_WEBHOOK_SECRET="another secret of the routes")
    key = system.insert("one")
    answer = system.told(key, "endpoint_unauthorized", "answered 401", TOLD_S)
    system.type(answer["remedy"])
    system.mended(key)


def test_the_endpoint_is_down(system: System) -> None:
    system.stop("serve")
    key = system.insert("one")
    answer = system.told(key, "endpoint_down", "failing since", TOLD_S)
    assert system.status().startswith("not ready")
    system.type(answer["remedy"])
    system.mended(key)


def test_the_message_is_parked(system: System) -> None:
    system.behave("strict")
    key = system.insert("one")
    answer = system.told(key, "parked", "used up its attempts", TOLD_S)
    assert "422" in answer["conclusion"] or "is not welcome" in answer["conclusion"]
    system.behave("well")
    system.type(answer["remedy"])
    system.mended(key)


def test_the_key_is_held(system: System) -> None:
    system.behave("hang")
    key = system.insert("one")
    eventually(lambda: executing(system) == 1, 10, "a run that hangs")
    system.execute("UPDATE public.items SET name = 'two' WHERE id = %s", int(key))
    answer = system.told(key, "key_held", "1 executing", TOLD_S)
    system.type(answer["remedy"])
    system.mended(key)


def executing(system: System) -> int:
    [(count,)] = system.execute("SELECT count(*) FROM triggerkit.runs WHERE status = 'executing'")
    return int(count)


def test_the_queue_is_paused(system: System) -> None:
    assert system.command("queues", "pause", "copies").returncode == 0
    key = system.insert("one")
    answer = system.told(key, "queue_paused", "paused since", TOLD_S)
    assert answer["remedy"] == "triggerkit queues resume copies"
    system.type(answer["remedy"])
    system.mended(key)


@pytest.mark.parametrize(
    ("by", "within_s"), [(signal.SIGTERM, TOLD_S), (signal.SIGKILL, DEAD_WORKER_S)]
)
def test_no_worker_is_running(system: System, by: signal.Signals, within_s: float) -> None:
    system.stop("worker", by)
    key = system.insert("one")
    answer = system.told(key, "no_worker", "no worker is running", within_s)
    assert answer["remedy"] == "triggerkit worker"
    system.type(answer["remedy"])
    system.mended(key, 30)


def test_the_task_raises(system: System) -> None:
    system.behave("raise")
    key = system.insert("one")
    answer = system.told(key, "failed", "1 run failed since", TOLD_S)
    assert "ValueError: no such price, at" in answer["conclusion"]
    assert "copying.py:" in answer["conclusion"]
    shown = system.status()
    assert "ValueError: no such price, at" in shown
    system.behave("well")
    system.type(answer["remedy"])
    system.mended(key)


def test_the_api_is_busy_for_ever(system: System) -> None:
    system.behave("busy")
    key = system.insert("one")
    answer = system.told(key, "api_away", "Error code: 429", TOLD_S)
    assert "ApiBusy: Error code: 429" in answer["conclusion"]
    system.behave("well")
    system.mended(key, 30)


def test_the_text_is_empty(system: System) -> None:
    key = system.insert("")
    answer = system.told(key, "no_text", "triggerkit why public.items KEY", TOLD_S)
    assert "nothing to make one of" in answer["conclusion"]


def test_status_is_shown_again_while_it_is_watched(system: System) -> None:
    watching = subprocess.Popen(
        [sys.executable, "-m", "triggerkit", "status", "--watch", "--json"],
        cwd=system.folder,
        env=system.environment,
        stdout=subprocess.PIPE,
    )
    try:
        assert watching.stdout is not None
        shown = [orjson.loads(watching.stdout.readline()) for _ in range(2)]
    finally:
        watching.kill()
        watching.wait()
    assert [found["ready"] for found in shown] == [True, True]
    named = {process["name"]: process["state"] for process in shown[0]["processes"]}
    assert named == {"stream": "running", "serve": "running", "worker": "running"}

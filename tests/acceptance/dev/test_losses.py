"""Servers that go away under `dev`: said once by each process that lost one, and made good."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.acceptance.project import eventually
from tests.acceptance.small import SmallProject

#: Runs a worker executes at a time, unless told otherwise.
SLOTS = 8

#: Seconds from a loss of Redis's data to the execution of what waited, on a machine with time.
PROMISED_S = 2.0

#: Seconds more that a machine with other things to do may need.
SLACK_S = 2.0


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallProject]:
    project = SmallProject(tmp_path_factory.mktemp("losses"))
    project.dev.start()
    yield project
    project.dev.close()


def told(project: SmallProject, process: str, service: str) -> list[str]:
    """What a process told of its connection to a service, in order."""
    lines = project.events("connection", process=process, service=service)
    return [line["state"] for line in lines]


def wait_until_told(project: SmallProject, process: str, service: str, states: list[str]) -> None:
    eventually(
        lambda: len(told(project, process, service)) >= len(states), 20, f"{process}: {states}"
    )
    assert told(project, process, service) == states


@pytest.mark.parametrize("service", ["Redis", "Postgres"])
def test_a_connection_lost_and_back_is_told_once_by_each_process(
    project: SmallProject, service: str
) -> None:
    assert project.output_of_new_row()
    since = len(project.dev.lines)
    # Twice, since the second loss has to be told as the first.
    for times in (1, 2):
        pid = eventually(lambda: project.pid_of(service.lower()), 5, f"a running {service}")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        for process in ("serve", "worker"):
            wait_until_told(project, process, service, ["lost", "restored"] * times)
        assert project.output_of_new_row()
    others = [
        line
        for line in project.dev.lines[since:]
        if line.get("process") in ("serve", "worker")
        and line.get("level") in ("warning", "error")
        and line.get("event") != "connection"
    ]
    assert others == []


def redis_of(project: SmallProject) -> redis.Redis:
    url: Any = project.status()["redis_url"]
    return redis.Redis.from_url(url)


@pytest.mark.parametrize("loss", ["flushed", "flushed and killed"])
def test_what_redis_loses_is_queued_again_within_two_seconds(
    project: SmallProject, loss: str
) -> None:
    gate = project.folder / f"gate {loss}"
    holding = project.insert(SLOTS, gate)
    begun = [gate.with_name(f"{gate.name}.{row_id}.begun") for row_id in holding]
    eventually(lambda: all(path.exists() for path in begun), 10, "every slot in use")
    waiting = project.insert(20)
    with redis_of(project) as client:
        eventually(lambda: queued(client) == len(waiting), 10, "the other runs in Redis")
        client.flushall()
    lost_at = time.monotonic()
    if loss == "flushed and killed":
        pid = project.pid_of("redis")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    gate.touch()
    finished = f"{len(waiting)} runs that Redis lost"
    eventually(lambda: len(project.outputs(waiting)) == len(waiting), 20, finished)
    took_s = time.monotonic() - lost_at
    print(f"{took_s:.2f} s until the end of what waited when Redis was {loss}")
    assert took_s < PROMISED_S + SLACK_S


def queued(client: redis.Redis) -> int:
    """How many ids of ready runs Redis has."""
    keys: Any = client.keys("triggerkit:*:task:note")
    return sum(int(client.zcard(key)) for key in keys)

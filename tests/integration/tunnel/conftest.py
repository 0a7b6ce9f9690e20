"""Fixtures of the tests of tunnels: an application that serves, with a key for secrets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.serving import serving
from tests.integration.tunnel.world import with_key
from triggerkit.settings import Settings
from triggerkit.web.application import Application


@pytest.fixture
def keyed(settings: Settings) -> Settings:
    """The test's settings, by which secrets of endpoints can be stored."""
    return with_key(settings)


@pytest.fixture
def port(keyed: Settings) -> Iterator[int]:
    """The port of an application that serves the test's database."""
    with serving(Application(keyed, [], None)) as site:
        yield site.port

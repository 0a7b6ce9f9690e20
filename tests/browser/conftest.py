"""Fixtures of the tests in a browser: a running system, and somebody who is logged in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.acceptance.running_system import System, running_system
from tests.browser.reader import Reader, chromium
from tests.servers import Servers


@pytest.fixture(scope="module")
def system(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The system, running; every test leaves it so."""
    with running_system(servers, tmp_path_factory.mktemp("system")) as system:
        system.be_well()
        yield system


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def dashboard(system: System) -> str:
    """Its URL, which stays when the system's own `serve` is away."""
    return system.start_dashboard()


@pytest.fixture
def reader(browser: Browser, dashboard: str) -> Iterator[Reader]:
    """Somebody who is logged in; at the end the browser had nothing to complain of."""
    context = browser.new_context()
    reader = Reader(context.new_page(), dashboard).log_in()
    yield reader
    context.close()
    assert not reader.complaints

"""A page that stays open while what it shows, or who shows it, goes away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.project import eventually
from tests.acceptance.running_system import System
from tests.browser.proxy import proxied
from tests.browser.reader import Reader
from tests.ports import free_port
from triggerkit.web.dashboard.live import MOST_STREAMS

AWAY = "The database or the server does not answer."

#: Counts the streams that were lost, after the page has heard of it.
_COUNTING = """
window.lost = 0;
window.EventSource = class extends EventSource {
  constructor(url) {
    super(url);
    this.addEventListener("error", () => setTimeout(() => window.lost += 1));
  }
};
"""

#: Milliseconds in which a page has noticed, and tried again.
PATIENCE_MS = 30_000


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that nobody has logged in on; what it complains of is expected."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


def said(page: Page) -> str:
    """What the open page says of itself."""
    return page.locator("#said").inner_text()


def test_an_open_page_goes_on_after_a_proxy_answered_for_its_server(
    system: System, page: Page
) -> None:
    port = free_port()
    system.start("serve", named="behind", TRIGGERKIT_PORT=str(port))
    with proxied(port) as proxy:
        reader = Reader(page, proxy.url).log_in()
        system.mended(system.insert("before"))
        reader.open("/runs")
        before = page.locator("table.runs tbody a.id").first.inner_text()
        system.stop("behind")
        expect(page.locator("#said")).to_contain_text(AWAY, timeout=PATIENCE_MS)
        refused = proxy.refused
        eventually(lambda: page.evaluate("1") and proxy.refused > refused, 30, "another try")
        system.start("serve", named="behind", TRIGGERKIT_PORT=str(port))
        expect(page.locator("#said")).to_be_hidden(timeout=PATIENCE_MS)
        system.insert("after")
        newest = page.locator("table.runs tbody a.id").first
        expect(newest).not_to_have_text(before, timeout=PATIENCE_MS)
    system.stop("behind")


def test_an_open_page_says_that_what_it_shows_is_gone(
    system: System, dashboard: str, page: Page
) -> None:
    reader = Reader(page, dashboard).log_in()
    created = system.command("consumers", "create", "short_lived", "--table", "public.items")
    assert created.returncode == 0, created.stderr
    reader.open("/consumers/short_lived")
    system.command("consumers", "delete", "short_lived", "--yes")
    expect(page.locator("#said")).to_contain_text(
        "no consumer is named 'short_lived'", timeout=PATIENCE_MS
    )
    expect(page.get_by_role("heading", name="short_lived")).to_be_visible()


def test_an_open_page_says_that_its_session_has_ended(system: System, page: Page) -> None:
    port = str(free_port())
    system.start("serve", named="renewed", TRIGGERKIT_PORT=port)
    reader = Reader(page, f"http://127.0.0.1:{port}/dashboard").log_in()
    reader.open("/runs")
    system.stop("renewed")
    expect(page.locator("#said")).to_contain_text(AWAY, timeout=PATIENCE_MS)
    another = "another management key for the tests"
    system.start("serve", named="renewed", TRIGGERKIT_PORT=port, TRIGGERKIT_SECRET_KEY=another)
    expect(page.locator("#said")).to_contain_text("Your session has ended", timeout=PATIENCE_MS)
    system.stop("renewed")


def test_a_page_beyond_those_that_can_be_live_says_so(dashboard: str, page: Page) -> None:
    reader = Reader(page, dashboard).log_in()
    [cookie] = page.context.cookies()
    page.add_init_script(_COUNTING)
    port = urlsplit(dashboard).port
    with ExitStack() as stack:
        reader.open("/connect")
        for _ in range(MOST_STREAMS):
            connection = HTTPConnection("127.0.0.1", port, timeout=20)
            stack.callback(connection.close)
            headers = {"cookie": f"{cookie['name']}={cookie['value']}"}
            connection.request("GET", "/dashboard/live", headers=headers)
            assert connection.getresponse().readline() == b"retry: 2000\n"
        reader.open("/queues")
        # Its stream has ended, which is no sign of a server that is away.
        page.wait_for_function("window.lost > 0")
        assert "Too many pages are open" in said(page)

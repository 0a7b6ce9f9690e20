"""Somebody who reads the dashboard in a real browser, and hears what the browser complains of."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.acceptance.running_system import SECRET_KEY

#: Not a browser of Playwright's own, which would have to be downloaded: the distribution's.
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

#: Else it asks hosts of its maker's as it starts.
_OPTIONS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

#: Milliseconds in which what is waited for is there.
PATIENCE_MS = 15_000

#: What axe-core counts as a fault that keeps somebody out.
_SERIOUS = ("serious", "critical")


class Reader:
    """A page of the dashboard at `url`, and what was wrong on it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))

    def log_in(self, key: str = SECRET_KEY) -> Reader:
        """Log in by the key, as a person does."""
        self.open("/")
        self.page.get_by_label("Secret key").fill(key)
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_url(f"{self.url}/")
        return self

    def open(self, path: str) -> None:
        """Open a page by its path."""
        self.page.goto(f"{self.url}{path}")

    def faults(self) -> list[str]:
        """What keeps people from using the page that is open, as axe-core finds it."""
        found = Axe().run(self.page).response["violations"]
        return [
            f"{one['id']}: {one['help']}: {node['html'][:200]}"
            for one in found
            if one["impact"] in _SERIOUS
            for node in one["nodes"]
        ]

    def overflow(self) -> int:
        """How many pixels the page is wider than the window."""
        wide: int = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return wide

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium of the system's; tests are skipped where there is none."""
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        missing = "no chromium; install it with: apt install chromium"
        assert os.environ.get("TRIGGERKIT_TEST_REQUIRE") != "all", missing
        pytest.skip(missing)
    # As root, which containers run tests as, it has no sandbox.
    sandbox = [] if os.geteuid() else ["--no-sandbox"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=[*_OPTIONS, *sandbox], timeout=60_000
        )
        yield browser
        browser.close()

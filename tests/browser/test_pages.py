"""Each page as it is seen: both themes, small and large windows, and by those who cannot see it."""

from __future__ import annotations

from typing import Literal

import pytest
from playwright.sync_api import Browser

from tests.acceptance.running_system import System
from tests.browser.reader import Reader
from triggerkit.web.dashboard.routes import routes

#: Pages of one thing, and a form that is filled in.
ONE = ("/consumers/copy_item", "/endpoints/copy_item", "/new/consumer?table=public.items")


def pages() -> list[str]:
    """The paths of all pages that are of nothing in particular."""
    return [route.path for route in routes() if route.get is not None and "{" not in route.path]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_every_page_fits_its_window_and_keeps_nobody_out(
    browser: Browser, dashboard: str, system: System, theme: Literal["light", "dark"], width: int
) -> None:
    context = browser.new_context(
        color_scheme=theme, viewport={"width": width, "height": 800}, bypass_csp=True
    )
    reader = Reader(context.new_page(), dashboard).log_in()
    [(run,)] = system.execute("SELECT id FROM triggerkit.runs ORDER BY seq LIMIT 1")
    wrong = {}
    for path in [*pages(), f"/runs/{run}", "/why?q=public.items+1", *ONE]:
        reader.open(path)
        found = reader.faults()
        if reader.overflow() > 0:
            found.append(f"{reader.overflow()} pixels too wide")
        if found:
            wrong[path] = found
    context.close()
    assert not wrong, "\n".join(f"{path}: {one}" for path, found in wrong.items() for one in found)
    assert not reader.complaints


def test_what_does_not_exist_is_said(reader: Reader) -> None:
    reader.open("/runs/run_00000000000000000000000000")
    assert "404" in reader.page.get_by_role("main").inner_text()
    reader.complaints = [c for c in reader.complaints if "404" not in c]


@pytest.mark.parametrize("path", ["/databases", "/connect"])
def test_a_page_loads_the_checks_of_the_database_into_itself(reader: Reader, path: str) -> None:
    reader.open(path)
    checks = reader.page.get_by_text("postgres reachable")
    checks.wait_for(state="attached")
    assert reader.page.get_by_role("link", name="Run the checks").count() == 0
    assert reader.page.url.endswith(path)


def test_a_run_is_replayed_from_its_page(reader: Reader, system: System) -> None:
    key = system.insert("one")
    system.mended(key)
    reader.open("/runs?table=public.items")
    reader.page.get_by_role("link", name="copy_item").first.click()
    reader.page.get_by_role("button", name="Replay").click()
    assert reader.page.get_by_text("replay of").is_visible()

"""The pages of events with something on them, and a topic that is open while its table changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
from playwright.sync_api import Browser, expect

from tests.acceptance.running_system import System
from tests.browser.reader import Reader

TOPIC = "triggerkit.app.items"

PAGES = ("/events", f"/events/topics/{TOPIC}", "/events/groups/search")


@pytest.fixture(scope="module")
def events(system: System) -> Iterator[System]:
    """The system, where the events of its table are read by a group."""
    system.execute(
        "INSERT INTO triggerkit.topics (name, label, database_id, schema_name, table_name) "
        "SELECT %s, 'app', id, 'public', 'items' FROM triggerkit.databases RETURNING 1",
        TOPIC,
    )
    system.execute(
        "INSERT INTO triggerkit.event_users (name, password) VALUES ('search', 'x') RETURNING 1"
    )
    system.execute(
        "WITH g AS (INSERT INTO triggerkit.event_groups (name) VALUES ('search') RETURNING id), "
        "i AS (INSERT INTO triggerkit.event_instances (group_id, name, topics, auto_commit, "
        "commit_interval_ms, offset_reset, session_timeout_ms, seen_at, committed_at) "
        "SELECT id, 'one', ARRAY[%s], true, 5000, 'latest', 1800000, now(), now() FROM g) "
        "INSERT INTO triggerkit.event_offsets (group_id, topic, partition, owner, committed) "
        "SELECT id, %s, p, 'one', 1 FROM g, generate_series(0, 7) p RETURNING 1",
        TOPIC,
        TOPIC,
    )
    system.mended(system.insert("first"))
    yield system
    for table in ("topics", "event_groups", "event_users"):
        system.execute(f"DELETE FROM triggerkit.{table} RETURNING 1")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_the_pages_of_events_fit_their_window_and_keep_nobody_out(
    browser: Browser, dashboard: str, events: System, theme: Literal["light", "dark"], width: int
) -> None:
    context = browser.new_context(
        color_scheme=theme, viewport={"width": width, "height": 800}, bypass_csp=True
    )
    reader = Reader(context.new_page(), dashboard).log_in()
    wrong = {}
    for path in PAGES:
        reader.open(path)
        for details in reader.page.locator("details.sure summary").all():
            details.click()
        found = reader.faults()
        if reader.overflow() > 0:
            found.append(f"{reader.overflow()} pixels too wide")
        if found:
            wrong[path] = found
    context.close()
    assert not wrong
    assert not reader.complaints


def test_a_topic_that_is_open_shows_a_new_event_as_it_comes(reader: Reader, events: System) -> None:
    reader.open(f"/events/topics/{TOPIC}")
    rows = reader.page.locator("table.tail tbody tr.note")
    expect(rows.first).to_contain_text("first")
    events.insert("a new one")
    expect(rows.first).to_contain_text("a new one", timeout=15_000)
    reader.page.keyboard.press("j")
    expect(reader.page.locator("table.tail tbody tr").first.locator("a").first).to_be_focused()


def test_a_user_is_added_and_removed_from_the_page(reader: Reader, events: System) -> None:
    reader.open("/events")
    reader.page.get_by_label("Name").fill("nightly")
    reader.page.get_by_role("button", name="Add user").click()
    expect(reader.page.get_by_text("shown this once")).to_be_visible()
    reader.page.get_by_role("link", name="To the events").click()
    row = reader.page.locator("tr", has_text="nightly")
    row.locator("summary").click()
    row.get_by_role("button", name="Remove nightly").click()
    expect(reader.page.locator("tr", has_text="nightly")).to_have_count(0)

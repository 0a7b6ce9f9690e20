"""A page that is open while things happen, and the keys and completions of its scripts."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.acceptance.running_system import System
from tests.browser.reader import Reader


def newest(reader: Reader) -> str:
    """The id of the run in the first row."""
    return reader.page.locator("table.runs tbody a.id").first.inner_text()


def test_an_open_list_follows_what_happens_but_not_under_the_pointer(
    reader: Reader, system: System
) -> None:
    system.mended(system.insert("first"))
    reader.open("/runs")
    before = newest(reader)
    rows = reader.page.locator("table.runs tbody a.id")
    system.insert("second")
    expect(rows.first).not_to_have_text(before, timeout=15_000)
    aimed_at = newest(reader)
    rows.first.hover()
    system.insert("third")
    expect(reader.page.get_by_text("Something changed.")).to_be_visible(timeout=15_000)
    assert newest(reader) == aimed_at
    reader.page.mouse.move(2, 2)
    expect(rows.first).not_to_have_text(aimed_at, timeout=15_000)


def test_a_filter_is_written_by_completions_and_rows_are_reached_by_keys(
    reader: Reader, system: System
) -> None:
    system.mended(system.insert("one"))
    reader.open("/runs")
    box = reader.page.locator("#filter")
    reader.page.keyboard.press("/")
    expect(box).to_be_focused()
    reader.page.keyboard.type("sta")
    expect(reader.page.locator("#completions li")).to_have_text(["status:"])
    reader.page.keyboard.press("ArrowDown")
    reader.page.keyboard.press("Enter")
    reader.page.keyboard.type("compl")
    reader.page.keyboard.press("ArrowDown")
    reader.page.keyboard.press("Enter")
    expect(box).to_have_value("status:completed ")
    reader.page.keyboard.press("Enter")
    reader.page.wait_for_url("**filter=status%3Acompleted**")
    reader.page.keyboard.press("j")
    expect(reader.page.locator("table.runs tbody tr").first.locator("a").first).to_be_focused()
    reader.page.keyboard.press("?")
    expect(reader.page.get_by_role("dialog")).to_be_visible()

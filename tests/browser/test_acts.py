"""What people do from pages, in a browser: each act, and what is said when it cannot be done."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.acceptance.running_system import System
from tests.browser.reader import Reader


def run_of(reader: Reader, system: System, key: str) -> str:
    """The id of the newest run of a row, once it completed."""
    system.mended(key)
    reader.open(f"/runs?filter=table:public.items+key:{key}+status:completed")
    return reader.page.locator("table.runs tbody a.id").first.inner_text()


def expect_refusal(reader: Reader) -> None:
    """The browser says on its console that an answer was a 422; that was meant."""
    assert [c for c in reader.complaints if "422" in c]
    reader.complaints = [c for c in reader.complaints if "422" not in c]


def test_a_run_is_replayed_with_an_edited_payload_that_is_checked_and_leads_back(
    reader: Reader, system: System
) -> None:
    run = run_of(reader, system, system.insert("one"))
    reader.open(f"/runs/{run}")
    reader.page.get_by_role("link", name="Replay with…").click()
    box = reader.page.get_by_label("Payload, as JSON")
    whole = box.input_value()
    box.fill(whole.replace('"name": "one"', '"name": ["no"]'))
    reader.page.get_by_role("button", name="Replay with this payload").click()
    expect(reader.page.get_by_role("alert")).to_contain_text("name: Input should be a valid string")
    expect(box).to_have_value(whole.replace('"name": "one"', '"name": ["no"]'))
    expect_refusal(reader)
    box.fill(whole.replace('"name": "one"', '"name": "two"'))
    reader.page.get_by_role("button", name="Replay with this payload").click()
    reader.page.get_by_role("link", name=run, exact=True).first.click()
    reader.page.wait_for_url(f"**/runs/{run}")
    expect(reader.page.get_by_role("heading", name="Its replays")).to_be_visible()


def test_a_run_is_replayed_with_its_current_row(reader: Reader, system: System) -> None:
    key = system.insert("before")
    run = run_of(reader, system, key)
    system.execute("UPDATE public.items SET name = 'after' WHERE id = %s", int(key))
    reader.open(f"/runs/{run}/replay")
    reader.page.get_by_role("button", name="Replay with the current row").click()
    expect(reader.page.get_by_text('"name": "after"').first).to_be_visible()


def test_all_that_fit_are_counted_then_done_while_the_page_follows(
    reader: Reader, system: System
) -> None:
    key = system.insert("many")
    run_of(reader, system, key)
    reader.page.get_by_role("link", name="Replay all…").click()
    expect(reader.page.get_by_text("This replays 1 run.")).to_be_visible()
    reader.page.get_by_role("button", name="Replay all: 1").click()
    expect(reader.page.locator("h1 .status")).to_have_text("done", timeout=15_000)
    expect(reader.page.get_by_text("1 done of 1 · 0 failed")).to_be_visible()
    reader.page.get_by_role("link", name="The runs that it made").click()
    expect(reader.page.locator("table.runs tbody a.id")).to_have_count(1)
    reader.open("/audit")
    expect(reader.page.get_by_text("end bulk").first).to_be_visible()


def test_a_bulk_is_followed_without_scripts(reader: Reader, system: System) -> None:
    run_of(reader, system, system.insert("plain"))
    context = reader.page.context.browser
    assert context is not None
    plain = context.new_context(java_script_enabled=False)
    try:
        other = Reader(plain.new_page(), reader.url).log_in()
        other.open("/bulks/new?action=replay-runs&filter=key:nobody+table:public.items")
        expect(other.page.get_by_text("There is nothing to do")).to_be_visible()
        other.open("/runs?filter=status:completed+since:1h")
        other.page.get_by_role("link", name="Replay all…").click()
        other.page.get_by_role("button", name="Replay all").click()
        # The page loads itself again for as long as there is something to come.
        expect(other.page.locator("h1 .status")).to_have_text("done", timeout=15_000)
    finally:
        plain.close()


def test_a_task_is_tested_with_a_real_row(reader: Reader, system: System) -> None:
    key = system.insert("real")
    reader.open("/tasks/copy_item")
    reader.page.get_by_role("link", name="Test with a real row").click()
    reader.page.get_by_label("Key").fill(key)
    reader.page.get_by_role("button", name="Take this row").click()
    box = reader.page.get_by_label("As JSON")
    assert '"name": "real"' in box.input_value()
    reader.page.get_by_role("button", name="Start a run").click()
    reader.page.wait_for_url("**/runs/run_*")
    assert "copy_item" in reader.page.locator("h1").inner_text()
    reader.open("/tasks/copy_item/test?table=public.items&key=999999")
    expect(reader.page.get_by_role("alert")).to_contain_text("has no row 999999")
    expect_refusal(reader)


def test_a_run_that_waits_is_rescheduled_and_started_now(reader: Reader, system: System) -> None:
    run = run_of(reader, system, system.insert("later"))
    reader.open("/queues")
    reader.page.locator("form[action$='/queues/copies/pause'] button").click()
    try:
        reader.open(f"/runs/{run}")
        reader.page.get_by_role("button", name="Replay", exact=True).click()
        expect(reader.page.locator("h1 .status")).to_have_text("queued")
        reader.page.get_by_text("Reschedule", exact=True).first.click()
        reader.page.get_by_label("When").fill("2h")
        reader.page.get_by_role("button", name="Reschedule").click()
        expect(reader.page.locator("h1 .status")).to_have_text("delayed")
        reader.page.get_by_text("Reschedule", exact=True).first.click()
        expect(reader.page.get_by_text("It is due in 120 min")).to_be_visible()
        reader.page.get_by_role("button", name="Start it now").click()
    finally:
        reader.open("/queues")
        reader.page.locator("form[action$='/queues/copies/resume'] button").click()
    reader.page.go_back()
    reader.open("/runs?filter=status:completed")
    expect(reader.page.locator("table.runs tbody a.id").first).not_to_have_text(run)


def test_parked_messages_are_retried_by_their_filter(reader: Reader, system: System) -> None:
    system.behave("strict")
    key = system.insert("refused")
    try:
        reader.open("/messages?filter=consumer:copy_item")
        expect(reader.page.get_by_text(f"public.items {key}").first).to_be_visible(timeout=20_000)
    finally:
        system.behave("well")
    reader.page.get_by_role("link", name="Retry…").click()
    expect(reader.page.get_by_text("This tries again")).to_be_visible()
    reader.page.get_by_role("button", name="Retry").click()
    expect(reader.page.locator("h1 .status")).to_have_text("done", timeout=15_000)
    system.mended(key)


def test_a_count_that_ends_at_a_bound_becomes_the_exact_one(reader: Reader, system: System) -> None:
    system.execute(
        "INSERT INTO triggerkit.runs (id, task, queue, status, attempt, max_attempts, payload, "
        "finished_at) SELECT 'run_' || lpad(n::text, 26, '0'), 'counted', 'default', 'completed', "
        "1, 1, 'null', now() FROM generate_series(1, 10050) n"
    )
    try:
        reader.open("/runs?filter=task:counted")
        expect(reader.page.locator("h1 .count")).to_have_text("10,050", timeout=15_000)
        reader.page.locator("h1 .count").click()
        expect(reader.page.get_by_text("10,050 runs fit task:counted")).to_be_visible()
    finally:
        system.execute("DELETE FROM triggerkit.runs WHERE task = 'counted'")

"""The guide by clicking, on the reference project: an endpoint, a consumer, a row, and its run."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.acceptance.project import ReferenceProject, eventually
from tests.browser.reader import Reader

ROUTE = "/api/create-embedding-for-post"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReferenceProject]:
    """The reference project while its `dev` runs."""
    project = ReferenceProject(tmp_path_factory.mktemp("project"))
    try:
        project.start()
        yield project
    finally:
        project.dev.close()


def visiting(browser: Browser, project: ReferenceProject, *, has_scripts: bool) -> Reader:
    context = browser.new_context(java_script_enabled=has_scripts)
    reader = Reader(context.new_page(), f"{project.dev.url}/dashboard")
    return reader.log_in(project.secret("TRIGGERKIT_SECRET_KEY"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("has_scripts", [True, False], ids=["scripts", "plain"])
def test_the_guides_push_consumer_is_made_by_clicking_and_its_run_completes(
    browser: Browser, project: ReferenceProject, has_scripts: bool
) -> None:
    suffix = "" if has_scripts else "_plain"
    endpoint, consumer = f"local_endpoint{suffix}", f"posts_push_consumer{suffix}"
    reader = visiting(browser, project, has_scripts=has_scripts)
    page = reader.page
    make_endpoint(reader, project, endpoint)
    make_consumer(reader, consumer, endpoint)
    with project.connect() as connection:
        [(post,)] = connection.execute(
            "INSERT INTO posts (title, body, author) VALUES ('The Future of AI', "
            "'An insightful look into how AI is shaping the future.', 'Alice H Johnson') "
            "RETURNING id"
        ).fetchall()

    way = page.get_by_role("row").filter(has=page.get_by_role("link", name=consumer, exact=True))

    def has_run() -> bool:
        reader.open(f"/trace?table=public.posts&key={post}")
        captured = page.locator("table.list tbody a")
        if captured.count() == 0:
            return False
        captured.first.click()
        return way.count() == 1 and "completed" in way.inner_text()

    eventually(has_run, 60, lambda: page.get_by_role("main").inner_text())
    expect(way).to_contain_text("delivered")
    expect(way).to_contain_text("200")
    way.get_by_role("link", name="create_embedding_for_post").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("completed")
    delete(reader, f"/consumers/{consumer}", consumer)
    delete(reader, f"/endpoints/{endpoint}", endpoint)
    assert not reader.complaints
    page.context.close()


def make_endpoint(reader: Reader, project: ReferenceProject, name: str) -> None:
    """Make the endpoint, with a header that is encrypted, and test it."""
    page = reader.page
    secret = project.secret("TRIGGERKIT_WEBHOOK_SECRET")
    page.get_by_role("link", name="Endpoints", exact=True).click()
    page.get_by_role("link", name="New endpoint").first.click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("textbox", name="URL").fill(f"{project.dev.url}{ROUTE}")
    page.get_by_label("Name of the header").fill("Authorization")
    page.get_by_label("Value of the header").fill(f"Bearer {secret}")
    page.get_by_role("button", name="Create endpoint").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    assert secret not in page.content()
    page.get_by_role("button", name="Test", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("completed")


def make_consumer(reader: Reader, name: str, endpoint: str) -> None:
    """Make the consumer as the guide does: rows of posts, by updated_at, from the beginning, pushed
    to the endpoint."""
    page = reader.page
    page.get_by_role("link", name="Consumers", exact=True).click()
    page.get_by_role("link", name="New consumer").click()
    page.get_by_label("public.posts").check()
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("radio", name=re.compile("^Rows")).check()
    page.get_by_label("Sort by").select_option("updated_at")
    page.get_by_role("radio", name="At the beginning of the table").check()
    page.get_by_label("Column", exact=True).select_option("title")
    page.get_by_label("Comparison", exact=True).select_option("not_null")
    page.get_by_role("button", name="Try it on real messages").click()
    expect(page.locator(".tried")).to_contain_text("would be sent")
    page.get_by_role("radio", name="Push").check()
    page.get_by_label("Endpoint", exact=True).select_option(endpoint)
    page.get_by_label("Messages at once").fill("100")
    page.get_by_label("Name of the consumer").fill("a b")
    page.get_by_role("button", name="Create consumer").click()
    expect(page.locator('[id="name-wrong"]')).to_contain_text("not a valid consumer name")
    expect(page.get_by_label("Sort by")).to_have_value("updated_at")
    # The browser tells of the status, too.
    reader.complaints = [one for one in reader.complaints if "422" not in one]
    page.get_by_label("Name of the consumer").fill(name)
    page.get_by_role("button", name="Create consumer").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(name)


def delete(reader: Reader, path: str, name: str) -> None:
    """Delete what a page is about, by its name."""
    page = reader.page
    reader.open(path)
    page.get_by_role("link", name="Delete", exact=True).click()
    page.get_by_label("Type its name to confirm").fill(name)
    page.get_by_role("button", name=f"Delete {name}").click()
    expect(page.get_by_role("main")).not_to_contain_text("404")
    reader.open(path)
    expect(page.get_by_role("heading", level=1)).to_have_text("404")
    reader.complaints = [one for one in reader.complaints if "404" not in one]

"""Two people change one thing by forms: the second is told what the first has changed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.run_state import RunState
from tests.integration.web.api.described import api
from tests.integration.web.dashboard.forms import fields_of, press
from tests.integration.web.dashboard.test_consumer_forms import AT, definition
from tests.integration.web.dashboard.test_endpoint_forms import AT as ENDPOINT
from tests.integration.web.dashboard.test_endpoint_forms import URL, make
from tests.integration.web.dashboard.test_pages import make_consumer, posts
from tests.integration.web.dashboard.visitor import Visitor

NAME = "posts_push_consumer"


@pytest.fixture
def consumer(state: RunState) -> None:
    """One to change."""
    posts(state.settings)
    make_consumer(state.settings)


@pytest.mark.usefixtures("consumer")
def test_the_second_who_saves_a_consumer_is_told_what_has_changed_since(
    state: RunState, visitor: Visitor
) -> None:
    first, second = (visitor.get(f"{AT}/edit") for _ in range(2))
    saved = press(visitor, f"{AT}/edit", first, "save", batch_size="25", filters__0__column="id",
                  filters__0__operator=">", filters__0__value="7")  # fmt: skip
    assert saved.status in (200, 303), saved.text
    told = press(visitor, f"{AT}/edit", second, "save", max_attempts="3")
    assert told.status == 409
    assert "Nothing was changed. Somebody else has saved it" in told.text
    assert "batch_size was 1, and is 25" in told.text
    assert "filters was nothing, and is id &gt; 7" in told.html
    assert "max_attempts" not in told.text.partition("What you typed")[0].rpartition("saved")[2]
    assert fields_of(told)["max_attempts"] == "3"
    now = definition(state, NAME)
    assert (now["batch_size"], now["max_attempts"]) == (25, None)
    # Who was told saves once more.
    over = press(visitor, f"{AT}/edit", told, "save")
    assert over.status in (200, 303), over.text
    now = definition(state, NAME)
    assert (now["batch_size"], now["max_attempts"], now["filters"]) == (1, 3, [])


@pytest.mark.usefixtures("consumer")
def test_other_buttons_keep_what_was_there_when_the_form_was_loaded(
    state: RunState, visitor: Visitor
) -> None:
    page = visitor.get(f"{AT}/edit")
    with api(state.settings) as site:
        site.done("PATCH", f"/consumers/{NAME}", {"batch_size": 30})
    more = press(visitor, f"{AT}/edit", page, "more")
    assert more.status == 200
    assert press(visitor, f"{AT}/edit", more, "save", max_attempts="3").status == 409
    assert definition(state, NAME)["max_attempts"] is None


@pytest.mark.usefixtures("consumer")
def test_of_those_who_save_at_once_one_does_and_the_others_are_told(
    state: RunState, visitor: Visitor
) -> None:
    pages = [visitor.get(f"{AT}/edit") for _ in range(4)]

    def save(number: int) -> int:
        given = {"batch_size": str(10 + number)}
        return press(visitor, f"{AT}/edit", pages[number], "save", **given).status

    with ThreadPoolExecutor(4) as threads:
        saved, *others = sorted(threads.map(save, range(4)))
    assert (saved in (200, 303), others) == (True, [409] * 3)
    actions = state.rows("SELECT action FROM triggerkit.audit WHERE action = 'change'")
    assert len(actions) == 1


def test_the_second_who_saves_an_endpoint_is_told_what_has_changed_since(
    state: RunState, visitor: Visitor
) -> None:
    make(visitor)
    at = f"{ENDPOINT}/edit"
    first, second = (visitor.get(at) for _ in range(2))
    assert press(visitor, at, first, "save", url=f"{URL}?x=1", headers__0__name="X-One",
                 headers__0__value="s3cret!").status == 303  # fmt: skip
    told = press(visitor, at, second, "save", url=f"{URL}?x=2", signing="generate")
    assert told.status == 409
    assert f"url was {URL}, and is {URL}?x=1" in told.text
    assert "X-One" in told.text
    assert "s3cret" not in told.html
    assert fields_of(told)["url"] == f"{URL}?x=2"
    assert state.rows("SELECT url FROM triggerkit.endpoints") == [f"{URL}?x=1"]
    assert press(visitor, at, told, "save").status in (200, 303)
    assert state.rows("SELECT url FROM triggerkit.endpoints") == [f"{URL}?x=2"]


def test_of_those_who_save_an_endpoint_at_once_one_does(state: RunState, visitor: Visitor) -> None:
    make(visitor)
    pages = [visitor.get(f"{ENDPOINT}/edit") for _ in range(4)]

    def save(number: int) -> int:
        given = {"url": f"{URL}?x={number}"}
        return press(visitor, f"{ENDPOINT}/edit", pages[number], "save", **given).status

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(save, range(4))) == [303, 409, 409, 409]
    edits = state.rows("SELECT action FROM triggerkit.audit WHERE action = 'endpoint.edit'")
    assert len(edits) == 1

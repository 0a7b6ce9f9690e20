"""A form that is sent twice, as a double click does, does it once, and both get one answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.integration.run_state import RunState, new_run
from tests.integration.serving import serving
from tests.integration.web.dashboard.forms import fields_of
from tests.integration.web.dashboard.test_actions import audited
from tests.integration.web.dashboard.test_endpoint_forms import AT, NEW, URL, make
from tests.integration.web.dashboard.visitor import Seen, Visitor, dashboard
from triggerkit import task
from triggerkit.tasks.declare import declared

SCHEDULE = """
INSERT INTO triggerkit.schedules (name, task, queue, cron, timezone, max_attempts, next_at)
VALUES ('nightly', 'work', 'default', '0 3 * * *', 'UTC', 3, now() + interval '1 h')
"""


# Other modules' tasks of this name may be declared in this process, too.
_other = declared.pop("work", None)


@task(name="work")
def work(payload: dict[str, int]) -> None: ...


del declared["work"]
if _other is not None:
    declared["work"] = _other


@pytest.fixture
def other(state: RunState, visitor: Visitor) -> Iterator[Visitor]:
    """The same reader at another process that serves the same."""
    with dashboard(state.settings, [work]) as other:
        other.cookie = visitor.cookie
        yield other


def twice(visitor: Visitor, path: str, form: dict[str, str]) -> list[Seen]:
    """What is answered to a form that is sent twice at once."""
    with ThreadPoolExecutor(2) as threads:
        return [*threads.map(lambda _: visitor.submit(path, form), range(2))]


def made(state: RunState) -> list[str]:
    """The runs that there are, the newest first."""
    return state.rows("SELECT id FROM triggerkit.runs ORDER BY id DESC")


def test_a_run_is_made_once_by_a_form_whichever_process_gets_it(
    state: RunState, visitor: Visitor, other: Visitor
) -> None:
    [first] = state.accept(new_run(payload=b'{"n":7}'))
    at = f"/runs/{first.id}"
    edited = {"with": "edited", "payload": '{"n": 8}'}
    for page, path, given in (
        (at, f"{at}/replay", {}),
        (f"{at}/replay", f"{at}/replay", {"with": "original"}),
        (f"{at}/replay", f"{at}/replay", edited),
        ("/tasks/work/test", "/tasks/work/start", {"payload": '{"n": 9}'}),
    ):
        before, lines = made(state), len(audited(state))
        form = {**visitor.get(page).proof, **given}
        seen = [*twice(visitor, path, form), other.submit(path, form)]
        [new] = set(made(state)) - set(before)
        assert [(one.status, one.headers["location"]) for one in seen] == [
            (303, f"/dashboard/runs/{new}")
        ] * 3
        assert len(audited(state)) == lines + 1


def test_a_schedule_is_run_once_by_a_form(
    state: RunState, visitor: Visitor, other: Visitor
) -> None:
    state.connection.execute(SCHEDULE)
    form = visitor.get("/schedules").proof
    for one in (visitor, visitor, other):
        assert one.submit("/schedules/nightly/run", form).status == 303
    assert len(made(state)) == 1
    assert visitor.submit("/schedules/nightly/run", visitor.get("/schedules").proof).status == 303
    assert len(made(state)) == 2


def test_a_form_that_is_filled_in_otherwise_or_shown_again_is_another_one(
    state: RunState, visitor: Visitor
) -> None:
    form = {**visitor.get("/tasks/work/test").proof, "payload": '{"n": 1}'}
    assert visitor.submit("/tasks/work/start", {**form, "payload": '{"n": "x"}'}).status == 422
    for given in (form, {**form, "payload": '{"n": 2}'}):
        assert visitor.submit("/tasks/work/start", given).status == 303
    again = {**form, **visitor.get("/tasks/work/test").proof}
    assert visitor.submit("/tasks/work/start", again).status == 303
    assert len(made(state)) == 3


def test_what_is_shown_once_is_shown_to_both(state: RunState, visitor: Visitor) -> None:
    given = {"name": "local_endpoint", "url": URL, "signing": "generate", "do": "save"}
    seen = twice(visitor, NEW, {**fields_of(visitor.get(NEW)), **given})
    secrets = {secret for one in seen for secret in re.findall(r"whsec_[\w+/=]+", one.html)}
    assert ([one.status for one in seen], len(secrets)) == ([200, 200], 1)
    assert state.rows("SELECT count(*) FROM triggerkit.endpoints") == [1]


def test_an_endpoint_is_tested_once_by_a_form(visitor: Visitor) -> None:
    pushed: list[str] = []

    async def push(request: Request) -> Response:
        pushed.append(request.headers["webhook-id"])
        return Response()

    with serving(Starlette(routes=[Route("/push", push, methods=["POST"])])) as receiver:
        make(visitor, url=f"http://127.0.0.1:{receiver.port}/push")
        first, second = twice(visitor, f"{AT}/test", visitor.get(AT).proof)
        assert (first.status, second.status, len(pushed)) == (200, 200, 1)
        visitor.submit(f"{AT}/test", first.proof)
        assert len(pushed) == 2


def test_what_was_refused_can_be_sent_again(state: RunState, visitor: Visitor) -> None:
    form = {"csrf": visitor.get("/runs").csrf, "once": "a form"}
    assert visitor.submit("/schedules/nightly/run", form).status == 404
    state.connection.execute(SCHEDULE)
    assert visitor.submit("/schedules/nightly/run", form).status == 303

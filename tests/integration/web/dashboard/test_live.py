"""What an open page is told: that something changed, that the database is away, that it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse

from tests.integration.away import away
from tests.integration.run_state import RunState, new_run
from tests.integration.web.dashboard.visitor import Visitor, dashboard
from triggerkit.settings import Settings


@contextmanager
def listening(visitor: Visitor) -> Iterator[HTTPResponse]:
    """The stream of an open page, whose first line has come."""
    connection = HTTPConnection("127.0.0.1", visitor.port, timeout=20)
    try:
        connection.request("GET", "/dashboard/live", headers={"cookie": visitor.cookie or ""})
        response = connection.getresponse()
        assert response.status == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.readline() == b"retry: 2000\n"
        yield response
    finally:
        connection.close()


def told(stream: HTTPResponse) -> str:
    """The next event's name."""
    while line := stream.readline():
        if line.startswith(b"event: "):
            return line.removeprefix(b"event: ").decode().strip()
    return "over"


def test_an_open_page_is_told_of_a_change(state: RunState, visitor: Visitor) -> None:
    with listening(visitor) as one, listening(visitor) as another:
        for _ in range(2):
            state.accept(new_run())
            assert (told(one), told(another)) == ("changed", "changed")


def test_an_open_page_is_told_that_the_database_is_away_and_that_it_is_back(
    state: RunState, visitor: Visitor
) -> None:
    with listening(visitor) as stream:
        with away(state.settings.state_dsn):
            assert told(stream) == "away"
        assert told(stream) == "changed"


def test_nothing_is_told_without_a_session(settings: Settings) -> None:
    with dashboard(settings) as stranger:
        seen = stranger.request("GET", "/dashboard/live", accept="text/event-stream")
        assert seen.status == 303
        assert seen.html == ""


def test_streams_end_with_the_process_and_do_not_hold_it_up(settings: Settings) -> None:
    with dashboard(settings) as visitor:
        visitor.log_in()
        with listening(visitor) as stream:
            visitor.stop()
            started = time.monotonic()
            while told(stream) != "over":
                pass
            assert time.monotonic() - started < 5

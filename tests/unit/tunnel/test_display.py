"""The lines of a tunnel: what each delivery says, what is hidden, and in which forms."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from triggerkit.delivery.http.connection import Response
from triggerkit.tunnel.deliveries import Delivery
from triggerkit.tunnel.display import Display, Filter, Output
from triggerkit.tunnel.messages import Summary, summary_of
from triggerkit.tunnel.port import Outcome
from triggerkit.tunnel.wire import Opened, Push, Ready


def message(table: str = "posts", action: str = "insert") -> dict[str, Any]:
    return {"record": {}, "action": action,
            "metadata": {"table_schema": "public", "table_name": table}}  # fmt: skip


def delivery(outcome: Outcome, *messages: dict[str, Any], **headers: str) -> Delivery:
    body = orjson.dumps({"data": messages or [message()]})
    given = {"webhook-id": "msg_1", "triggerkit-attempt": "2", **headers}
    push = Push(1, "local_endpoint", "/api/hook", given, len(body), 30.0)
    return Delivery(datetime(2026, 10, 28, 14, 2, 11, tzinfo=UTC), push, body, outcome)


TAKEN = Outcome(261.8, Response(200, {}, b"{}"))
ALL = Filter()
CLOSED = Outcome(0.6, error="nothing listens on port 3001", is_closed=True)


def display(output: Output = Output.compact, wanted: Filter = ALL) -> tuple[Display, list[str]]:
    lines: list[str] = []
    url_of = lambda endpoint, path: f"http://localhost:3001{path}"  # noqa: E731
    return Display(output, wanted, lines.append, url_of, has_keys=True), lines


def test_a_delivery_is_a_line() -> None:
    shown, lines = display()
    shown.delivered(delivery(TAKEN, message(), message(), message()))
    shown.delivered(delivery(CLOSED))
    assert lines == [
        "14:02:11  POST /api/hook  200  262 ms  3 rows",
        f"14:02:11  POST /api/hook  502  1 ms  1 row  {CLOSED.error}; it is tried again",
    ]


def test_quiet_tells_of_problems_alone() -> None:
    shown, lines = display(Output.quiet)
    shown.ready(Ready("alice", []), is_first=True, away_s=0)
    shown.delivered(delivery(TAKEN))
    assert lines == []
    shown.delivered(delivery(Outcome(1.0, Response(500, {}, b""))))
    shown.lost("the connection was lost", 1.0)
    shown.lost("the connection was lost", 2.0)
    assert len(lines) == 2
    assert "500" in lines[0]


def test_json_has_a_line_for_each() -> None:
    shown, lines = display(Output.json)
    shown.ready(
        Ready("alice", [Opened("local_endpoint", "/api/hook", 12)]), is_first=True, away_s=0
    )
    shown.delivered(delivery(TAKEN))
    shown.lost("the connection was lost", 1.04)
    shown.ended()
    ready, delivered, lost, ended = map(orjson.loads, lines)
    assert ready["tunnels"] == [
        {"endpoint": "local_endpoint", "url": "http://localhost:3001/api/hook", "waiting": 12}
    ]
    assert (delivered["status"], delivered["ms"], delivered["rows"]) == (200, 261.8, 1)
    assert (delivered["id"], delivered["attempt"], delivered["again"]) == ("msg_1", "2", False)
    assert lost == {"event": "lost", "reason": "the connection was lost", "retry_in_s": 1.0}
    assert ended == {"event": "ended", "deliveries": 1}


@pytest.mark.parametrize(
    ("wanted", "is_shown"),
    [
        (Filter(), True),
        (Filter(frozenset({"public.posts"})), True),
        (Filter(frozenset({"public.users"})), False),
        (Filter(actions=frozenset({"insert"})), True),
        (Filter(actions=frozenset({"delete"})), False),
        (Filter(frozenset({"public.posts"}), frozenset({"delete"})), False),
    ],
)
def test_a_filter_says_of_what_a_line_is_printed(wanted: Filter, is_shown: bool) -> None:
    shown, lines = display(wanted=wanted)
    shown.delivered(delivery(TAKEN))
    assert bool(lines) == is_shown
    assert (shown.last is not None) == is_shown


def test_details_show_all_but_what_is_secret_and_obey_nothing() -> None:
    shown, lines = display()
    shown.details()
    assert lines.pop() == "nothing was delivered yet"
    secret = {"authorization": "Bearer hunter2", "x-api-key": "hunter2", "cookie": "a=hunter2"}
    shown.delivered(
        delivery(Outcome(1.0, Response(200, {}, b"\x1b[2Jgone")), message("\x1b]0;x"), **secret)
    )
    shown.details()
    text = "\n".join(lines)
    assert "hunter2" not in text
    assert "\x1b" not in text
    assert "webhook-id: msg_1" in text
    assert "answer 200 after 1 ms" in text


@pytest.mark.parametrize(
    ("body", "summary"),
    [
        (b"{}", Summary(1, frozenset(), frozenset())),
        (b"not json", Summary(1, frozenset(), frozenset())),
        (b'{"data": [1, 2]}', Summary(1, frozenset(), frozenset())),
        (b'{"data": []}', Summary(0, frozenset(), frozenset())),
        (
            orjson.dumps(message("a.b", "delete")),
            Summary(1, frozenset({'public."a.b"'}), frozenset({"delete"})),
        ),
        (
            orjson.dumps({"data": [message(), message("users", "update")]}),
            Summary(2, frozenset({"public.posts", "public.users"}),
                    frozenset({"insert", "update"})),
        ),
    ],
)  # fmt: skip
def test_a_body_says_its_rows_tables_and_actions(body: bytes, summary: Summary) -> None:
    assert summary_of(body) == summary

"""Probes of a process: whether it lives, whether it takes work, and callers that misbehave."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time

import orjson
import pytest

from triggerkit.supervisor.probes import process_health, server
from triggerkit.supervisor.probes.listening import listen
from triggerkit.supervisor.probes.process_health import ProcessHealth
from triggerkit.supervisor.probes.server import MOST_AT_ONCE, start_probes


class Probed:
    """A health, and the port on which it is told."""

    def __init__(self) -> None:
        self.away: list[str] = []
        self.health = ProcessHealth(lambda: iter(self.away))
        listener = listen("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        start_probes(listener, self.health)

    def ask(self, path: str, method: str = "GET") -> tuple[int, object]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, orjson.loads(content) if content else None
        finally:
            connection.close()


@pytest.fixture
def probed() -> Probed:
    return Probed()


def test_a_process_lives_at_once_and_is_ready_once_it_works(probed: Probed) -> None:
    assert probed.ask("/healthz") == (200, {"alive": True})
    assert probed.ask("/readyz") == (503, {"ready": False, "missing": ["startup"]})
    probed.health.works("active")
    assert probed.ask("/readyz") == (200, {"ready": True, "missing": [], "role": "active"})


def test_what_is_missing_is_named_until_it_is_there(probed: Probed) -> None:
    probed.health.works()
    probed.health.lacks("triggerkit apply")
    probed.away.append("redis")
    missing = {"ready": False, "missing": ["redis", "triggerkit apply"]}
    assert probed.ask("/readyz") == (503, missing)
    assert probed.ask("/healthz") == (200, {"alive": True})
    probed.health.has("triggerkit apply")
    probed.away.clear()
    assert probed.ask("/readyz") == (200, {"ready": True, "missing": []})


def test_what_was_asked_to_end_is_not_ready_again(probed: Probed) -> None:
    probed.health.works()
    probed.health.stop()
    probed.health.works()
    assert probed.ask("/readyz") == (503, {"ready": False, "missing": ["stopping"]})


def test_a_loss_is_missing_and_has_no_role(probed: Probed) -> None:
    async def lose() -> None:
        async with probed.health.unless_lost("postgres"):
            probed.health.works("active")

    asyncio.run(lose())
    assert probed.ask("/readyz") == (503, {"ready": False, "missing": ["postgres"]})


def test_an_event_loop_that_does_not_turn_is_named(
    probed: Probed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_health, "STUCK_S", 0.3)
    monkeypatch.setattr(process_health, "TURN_S", 0.01)

    async def blocked() -> tuple[object, object]:
        turning = asyncio.create_task(probed.health.turn("event loop"))
        await asyncio.sleep(0.05)
        before = await asyncio.to_thread(probed.ask, "/healthz")
        time.sleep(0.5)  # noqa: ASYNC251 - what blocks it
        stuck = probed.ask("/healthz")
        turning.cancel()
        await asyncio.gather(turning, return_exceptions=True)
        return before, stuck

    before, stuck = asyncio.run(blocked())
    assert before == (200, {"alive": True})
    assert stuck == (503, {"alive": False, "stuck": ["event loop"]})
    assert probed.ask("/healthz") == (200, {"alive": True}), "what has ended is not stuck"


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/", "GET", 404),
        ("/metrics", "GET", 404),
        ("/healthz?verbose=1", "GET", 200),
        ("/healthz", "HEAD", 200),
        ("/healthz", "POST", 405),
    ],
)
def test_other_requests(probed: Probed, path: str, method: str, status: int) -> None:
    assert probed.ask(path, method)[0] == status


@pytest.mark.parametrize(
    "sent", [b"\r\n\r\n", b"x" * 20_000, b"GET\r\n\r\n", b"\x16\x03\x01\r\n\r\n"]
)
def test_what_is_no_request_is_refused_and_harms_nobody(probed: Probed, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", probed.port), timeout=5) as caller:
        caller.sendall(sent)
        assert caller.recv(100).startswith(b"HTTP/1.1 4")
    assert probed.ask("/healthz")[0] == 200


def test_callers_that_say_nothing_are_sent_away(
    probed: Probed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_S", 0.3)
    silent = [
        socket.create_connection(("127.0.0.1", probed.port), timeout=5) for _ in range(MOST_AT_ONCE)
    ]
    try:
        for caller in silent:
            assert caller.recv(1) == b""
        assert probed.ask("/healthz")[0] == 200
    finally:
        for caller in silent:
            caller.close()


def test_the_thread_ends_with_the_process(probed: Probed) -> None:
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "probes")

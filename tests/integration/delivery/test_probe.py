"""A test message to endpoints of all kinds: what arrives there, and what the report says."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from standardwebhooks import Webhook
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from tests.certificates import self_signed
from tests.receiver import Received, Receiver
from triggerkit.delivery.credentials import Credentials
from triggerkit.delivery.http.network import LOOPBACK
from triggerkit.delivery.probe import Report, probe
from triggerkit.signature import new_secret

SECRET = new_secret()

PAGE = "<!doctype html><html><body>Sign in</body></html>"


async def sent(url: str, credentials: Credentials | None = None, timeout_s: float = 5) -> Report:
    return await probe("billing", url, credentials or Credentials(), LOOPBACK, timeout_s)


def answered(response: Callable[[], Response]) -> Report:
    """The report of a test that is answered so."""

    async def answer(_received: Received) -> Response:
        return response()

    async def scenario() -> Report:
        async with Receiver.start(answer) as receiver:
            return await sent(f"{receiver.url}/push")

    return asyncio.run(scenario())


def steps(report: Report) -> list[tuple[str, bool]]:
    return [(step.name, step.ok) for step in report.steps]


def test_the_message_is_signed_and_well_formed_and_says_that_it_is_a_test() -> None:
    credentials = Credentials({"Authorization": "Bearer x"}, (SECRET,))

    async def scenario() -> tuple[Report, Received]:
        async with Receiver.start() as receiver:
            report = await sent(f"{receiver.url}/push", credentials)
            return report, receiver.requests[0]

    report, received = asyncio.run(scenario())
    assert (report.ok, report.status, report.answer, report.meaning) == (True, 200, "{}", None)
    assert steps(report) == [("dns", True), ("connect", True), ("answer", True)]
    assert all(step.ms >= 0 for step in report.steps)
    Webhook(SECRET).verify(received.body, received.headers)
    assert received.headers["triggerkit-test"] == "1"
    assert received.headers["authorization"] == "Bearer x"
    [message] = received.messages
    assert (message["record"], message["changes"], message["action"]) == (None, None, "test")
    assert message["metadata"]["endpoint"] == {"name": "billing"}


@pytest.mark.parametrize(
    ("status", "meaning"),
    [(401, "does not know us"), (403, "refuses"), (404, "correct the URL"), (405, "no POST"),
     (410, "gone"), (415, "JSON"), (422, "test message"), (500, "its own log"),
     (418, "200 to 299")],
)  # fmt: skip
def test_each_refusal_is_explained(status: int, meaning: str) -> None:
    report = answered(lambda: JSONResponse({"error": "no"}, status))
    assert (report.ok, report.status, report.answer) == (False, status, '{"error":"no"}')
    assert report.meaning is not None
    assert meaning in report.meaning


@pytest.mark.parametrize("status", [200, 404])
def test_a_web_page_is_no_webhook_whatever_its_status(status: int) -> None:
    report = answered(lambda: HTMLResponse(PAGE, status))
    assert not report.ok
    assert report.meaning == "answered HTML: this looks like a web page, not a webhook"


def test_a_redirect_is_not_followed_but_told() -> None:
    report = answered(lambda: RedirectResponse("https://example.com/hook", 308))
    assert not report.ok
    assert "https://example.com/hook" in str(report.meaning)


def test_of_a_long_answer_the_first_characters_are_shown_and_none_steers_a_terminal() -> None:
    report = answered(lambda: Response("\x1b[2Jhello" + "x" * 1000, 200))
    assert len(report.answer) == 200
    assert "hello" in report.answer
    assert "\x1b" not in report.answer


def test_a_host_without_an_address_or_with_a_private_one_is_not_connected_to() -> None:
    unknown = asyncio.run(sent("http://no-such-host.invalid/"))
    assert steps(unknown) == [("dns", False)]
    private = asyncio.run(probe("x", "http://10.0.0.1/", Credentials(), LOOPBACK))
    assert steps(private) == [("dns", False)]
    assert "TRIGGERKIT_ALLOW_NETWORKS" in str(private.meaning)


def test_where_nobody_listens_the_connection_fails() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        report = asyncio.run(sent(f"http://127.0.0.1:{taken.getsockname()[1]}/"))
    assert steps(report) == [("dns", True), ("connect", False)]
    assert report.meaning == "connect failed: connection refused: nothing listens there"


def test_an_endpoint_that_never_answers_ends_the_test_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        report = asyncio.run(sent(url, timeout_s=0.3))
    assert steps(report) == [("dns", True), ("connect", True), ("answer", False)]
    assert "answer took too long" in str(report.meaning)


def test_without_its_credentials_nothing_is_sent() -> None:
    report = asyncio.run(sent("http://127.0.0.1:1/", Credentials(problem="no key")))
    assert (report.ok, report.steps, report.meaning) == (False, [], "no key")


@asynccontextmanager
async def tls_server(path: Path) -> AsyncIterator[str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


def test_tls_is_a_step_of_its_own_and_an_untrusted_certificate_ends_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = self_signed(tmp_path, "127.0.0.1")

    async def scenario() -> Report:
        async with tls_server(path) as url:
            return await sent(url)

    untrusted = asyncio.run(scenario())
    assert steps(untrusted) == [("dns", True), ("connect", True), ("tls", False)]
    assert "certificate" in str(untrusted.meaning)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    trusted = asyncio.run(scenario())
    assert steps(trusted) == [("dns", True), ("connect", True), ("tls", True), ("answer", True)]
    assert (trusted.ok, trusted.answer) == (True, "ok")
    assert "TLSv1" in trusted.steps[2].detail


def test_plain_http_on_a_port_for_tls_is_told(tmp_path: Path) -> None:
    async def scenario() -> Report:
        async with Receiver.start() as receiver:
            return await sent(receiver.url.replace("http://", "https://"))

    assert steps(asyncio.run(scenario()))[-1] == ("tls", False)

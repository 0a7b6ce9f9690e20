"""The client of pushes against servers that answer in every way, good and bad."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from triggerkit.delivery.http.client import HttpClient, endpoint_of
from triggerkit.delivery.http.connection import (
    MAX_ANSWER_BYTES,
    MAX_HEAD_BYTES,
    CannotReach,
    HttpError,
    Response,
)

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Server:
    """Answers the nth request with the nth of `answers`; b"" closes the connection instead."""

    def __init__(self, *answers: bytes, close_after: bool = False) -> None:
        self._answers = iter(answers)
        self._close_after = close_after
        self.connections = 0
        self.requests: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                self.requests.append(head + await reader.readexactly(length))
                answer = next(self._answers)
                writer.write(answer)
                await writer.drain()
                if not answer or self._close_after:
                    return
        except (asyncio.IncompleteReadError, StopIteration, ConnectionError):
            pass
        finally:
            writer.close()


Use = Callable[[HttpClient, str], Awaitable[Any]]


def run(server: Server, use: Use) -> Any:
    """The result of `use`, given a client and the server's URL."""

    async def here(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async def scenario() -> Any:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        client = HttpClient(here)
        try:
            return await asyncio.wait_for(use(client, f"http://example.com:{port}/a?b=c"), 10)
        finally:
            client.close()
            listening.close()

    return asyncio.run(scenario())


async def post(client: HttpClient, url: str) -> Response:
    return await client.request("POST", url, {"x-name": "value"}, b"body")


def answer_to(answer: bytes, **given: Any) -> Response:
    response: Response = run(Server(answer, **given), post)
    return response


def test_a_request_is_sent_as_http_says() -> None:
    server = Server(OK)
    response = run(server, post)
    (request,) = server.requests
    assert request.startswith(b"POST /a?b=c HTTP/1.1\r\nhost: example.com:")
    assert request.endswith(b"\r\nx-name: value\r\ncontent-length: 4\r\n\r\nbody")
    assert (response.status, response.body) == (200, b"ok")
    assert response.headers == {"content-length": "2"}


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", 500, b""),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.1 301 Moved\r\nlocation: /b\r\ncontent-length: 0\r\n\r\n", 301, b""),
    ],
    ids=["no content", "empty", "chunked", "continue", "hints", "redirect"],
)
def test_answers_are_read_in_all_their_forms(answer: bytes, status: int, body: bytes) -> None:
    response = answer_to(answer)
    assert (response.status, response.body) == (status, body)


def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    assert answer_to(b"HTTP/1.1 200 OK\r\n\r\nok", close_after=True).body == b"ok"
    assert answer_to(b"HTTP/1.0 200 OK\r\n\r\nok", close_after=True).body == b"ok"


def test_a_connection_serves_one_request_after_the_other() -> None:
    async def twice(client: HttpClient, url: str) -> None:
        await post(client, url)
        await post(client, url)

    server = Server(OK, OK)
    run(server, twice)
    assert (server.connections, len(server.requests)) == (1, 2)


@pytest.mark.parametrize("header", [b"connection: close", b"Connection: Close"])
def test_a_connection_that_the_server_ends_is_not_used_again(header: bytes) -> None:
    async def twice(client: HttpClient, url: str) -> None:
        await post(client, url)
        assert (await post(client, url)).status == 200

    closing = OK.replace(b"\r\n\r\n", b"\r\n" + header + b"\r\n\r\n")
    server = Server(closing, OK)
    run(server, twice)
    assert server.connections == 2


def test_requests_at_a_time_have_connections_of_their_own() -> None:
    async def both(client: HttpClient, url: str) -> None:
        await asyncio.gather(post(client, url), post(client, url))

    server = Server(OK, OK)
    run(server, both)
    assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * MAX_HEAD_BYTES * 2,
    ],
    ids=["none", "status", "body", "chunk", "length", "ssh", "upgrade", "head"],
)
def test_anything_but_a_whole_answer_is_an_error(answer: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        answer_to(answer, close_after=True)
    assert caught.value.was_sent


def test_a_large_answer_is_cut_and_its_connection_given_up() -> None:
    size = MAX_ANSWER_BYTES * 3
    response = answer_to(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
    assert (response.status, len(response.body)) == (200, MAX_ANSWER_BYTES)
    assert response.is_cut


def test_what_follows_an_answer_is_not_taken_for_the_next() -> None:
    async def twice(client: HttpClient, url: str) -> Response:
        await post(client, url)
        return await post(client, url)

    assert run(Server(OK + b"HTTP/1.1 500 No\r\n\r\n", OK), twice).status == 200


def test_a_request_that_is_given_up_takes_its_connection_along() -> None:
    async def give_up(client: HttpClient, url: str) -> Response:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(post(client, url), 0.05)
        return await post(client, url)

    server = Server(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", OK)
    assert run(server, give_up).body == b"ok"
    assert server.connections == 2


def test_where_nobody_listens_nothing_was_sent() -> None:
    async def elsewhere(client: HttpClient, url: str) -> None:
        await post(client, "http://example.com:1/")

    with pytest.raises(CannotReach, match=r"example\.com:1") as caught:
        run(Server(), elsewhere)
    assert not caught.value.was_sent
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_a_line_break_in_a_header_is_refused() -> None:
    async def inject(client: HttpClient, url: str) -> None:
        await client.request("POST", url, {"x": "a\r\ncontent-length: 0"})

    with pytest.raises(CannotReach, match="line break"):
        run(Server(OK), inject)


def test_a_header_that_http_cannot_send_is_an_error_of_the_endpoint_alone() -> None:
    async def send(client: HttpClient, url: str) -> None:
        await client.request("POST", url, {"x": "長い"})

    with pytest.raises(CannotReach, match="characters"):
        run(Server(OK), send)


def test_what_comes_behind_the_body_is_no_header_and_does_not_go_on_for_ever() -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
    response = answer_to(chunked + b"retry-after: 600\r\n\r\n")
    assert (response.status, response.body) == (200, b"ok")
    assert "retry-after" not in response.headers

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(chunked)
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x: %b\r\n" % (b"y" * 1000))
                await writer.drain()
        writer.close()

    server = Server()
    server.serve = endless  # type: ignore[method-assign]
    assert run(server, post).body == b"ok"


def test_how_a_message_is_framed_is_not_for_an_endpoint_to_say() -> None:
    async def frame(client: HttpClient, url: str) -> Response:
        given = {"Host": "b", "Content-Length": "0", "transfer-encoding": "chunked"}
        return await client.request("POST", url, given, b"body")

    server = Server(OK)
    assert run(server, frame).status == 200
    assert server.requests[0].lower().count(b"content-length") == 1
    assert b"chunked" not in server.requests[0]


@pytest.mark.parametrize(
    "url",
    ["ftp://x/", "http://", "//x", "http://x:99999/", "http://x/ b", "http://x/\x7f", "http://x/é",
     "file:///etc/passwd", "gopher://x/", "http://x/\r\nhost: y", "http://x/\n", " http://x/",
     "http://a..b/", "http://x:0x50/"],
)  # fmt: skip
def test_what_is_no_url_of_an_endpoint_is_refused(url: str) -> None:
    with pytest.raises(CannotReach):
        endpoint_of(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@x/",
        "http://hunter2@x/",
        "http://:@x/",
        "http://example.com\\@127.0.0.1/",
    ],
)
def test_a_url_with_a_user_or_password_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(CannotReach, match="header instead") as raised:
        endpoint_of(url)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "authority", "target"),
    [
        ("http://x", "x", "/"),
        ("https://x:443/a", "x", "/a"),
        ("https://x:80/a?b", "x:80", "/a?b"),
        ("http://[::1]:8080/#f", "[::1]:8080", "/"),
        ("http://bücher.example/", "xn--bcher-kva.example", "/"),
    ],
)
def test_a_url_is_taken_apart(url: str, authority: str, target: str) -> None:
    endpoint = endpoint_of(url)
    assert (endpoint.authority, endpoint.target) == (authority, target)


def test_a_request_that_was_given_up_does_not_arrive_later() -> None:
    """What the system still had of it would come after what is sent by then instead of it."""
    listening = socket.socket()
    # What is not read yet stays with the sender.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listening.bind(("127.0.0.1", 0))
    listening.listen()

    async def here(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async def scenario() -> None:
        client = HttpClient(here)
        url = f"http://example.com:{listening.getsockname()[1]}/"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.request("POST", url, {}, b"x" * 100_000)

    asyncio.run(scenario())
    arrived = 0
    with listening, listening.accept()[0] as connection, contextlib.suppress(ConnectionResetError):
        connection.settimeout(10)
        while piece := connection.recv(65_536):
            arrived += len(piece)
    assert arrived < 100_000

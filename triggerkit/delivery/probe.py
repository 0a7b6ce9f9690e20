"""Try an endpoint step by step: address, connection, TLS, and, if wanted, a signed test message."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

import orjson

from triggerkit.delivery.credentials import Credentials
from triggerkit.delivery.http.client import HttpClient, HttpTarget, endpoint_of, request_bytes
from triggerkit.delivery.http.connection import Connection, HttpError, Response
from triggerkit.delivery.http.network import AddressRefused, Network, checked
from triggerkit.delivery.push import Push, headers_of, is_page, read_answer
from triggerkit.errors import ConfigurationError

#: Seconds for all steps together.
TIMEOUT_S = 15.0

#: Characters of the answer that are shown.
SHOWN_CHARS = 200

#: What an answer means to who set the endpoint up.
_MEANINGS = {
    400: "it does not take the test message; it may take real ones",
    401: "it does not know us: correct the header that authorizes, or the signing secret",
    403: "it knows us and refuses: look at what this header may do there",
    404: "nothing is at this path: correct the URL",
    405: "it takes no POST at this path: correct the URL",
    410: "it is gone for good: a real push would be the last one",
    413: "it takes no body, however small: correct the URL",
    415: "it does not take JSON: correct the URL",
    422: "it does not take the test message; it may take real ones",
    429: "it is called too often; real pushes would wait",
}


@dataclass(frozen=True, slots=True)
class ProbeStep:
    """One step: `dns`, `connect`, `tls` or `answer`, and how long it took, in milliseconds."""

    name: str
    ok: bool
    detail: str
    ms: float


@dataclass(slots=True)
class Report:
    """The result of a test. `ok`: a real push would have been taken.

    `status` is None without an answer; `answer` are its first characters; `meaning` says what to
    do, and is None when all is well. `refused` is an address that no push may go to.
    """

    url: str
    ok: bool = False
    status: int | None = None
    answer: str = ""
    meaning: str | None = None
    refused: str | None = None
    steps: list[ProbeStep] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time a step and note how it ended; what it found is put into the list."""
        found: list[str] = []
        since = time.monotonic()
        try:
            yield found
        except (OSError, HttpError, TimeoutError) as error:
            self._add(name, False, _said(error), since)
            raise
        except asyncio.CancelledError:
            self._add(name, False, f"not within {TIMEOUT_S:g} s", since)
            raise
        self._add(name, True, " ".join(found), since)

    def _add(self, name: str, ok: bool, detail: str, since: float) -> None:
        ms = round((time.monotonic() - since) * 1000, 1)
        self.steps.append(ProbeStep(name, ok, detail, ms))


async def probe(
    name: str,
    url: str,
    credentials: Credentials,
    allowed: tuple[Network, ...],
    timeout_s: float = TIMEOUT_S,
) -> Report:
    """Send the endpoint `name` a test message as a push would; every fault is in the report."""
    report = Report(url)
    if credentials.problem is not None:
        report.meaning = credentials.problem
        return report
    await _bounded(report, _send(report, name, credentials, allowed), timeout_s)
    return report


async def reach(url: str, allowed: tuple[Network, ...], timeout_s: float = TIMEOUT_S) -> Report:
    """Go as far as a push does before it says anything: address, connection, TLS. `ok` says that
    a push would come through; every fault is in the report."""
    report = Report(url)
    await _bounded(report, _reach(report, allowed), timeout_s)
    return report


async def _bounded(report: Report, work: Awaitable[None], timeout_s: float) -> None:
    """Do the work; what keeps it from its end becomes the report's meaning."""
    try:
        async with asyncio.timeout(timeout_s):
            await work
    except TimeoutError:
        report.meaning = f"nothing came back in time: {_last(report)}"
    except (HttpError, ConfigurationError) as error:
        report.meaning = str(error)
        report.refused = error.address if isinstance(error, AddressRefused) else None
    except OSError as error:
        report.meaning = f"{report.steps[-1].name} failed: {_said(error)}"


def _said(error: Exception) -> str:
    """Return what went wrong, without the names that a socket has for it."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    if isinstance(error, ConnectionError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


async def _reach(report: Report, allowed: tuple[Network, ...]) -> None:
    connection = await _connected(report, endpoint_of(report.url), allowed)
    connection.close()
    report.ok = True


async def _connected(
    report: Report, endpoint: HttpTarget, allowed: tuple[Network, ...]
) -> Connection:
    with report.step("dns") as found:
        found += await checked(allowed)(endpoint.host, endpoint.port)
    return await _connect(report, HttpClient(checked(allowed)), endpoint, list(found))


async def _send(
    report: Report, name: str, credentials: Credentials, allowed: tuple[Network, ...]
) -> None:
    endpoint = endpoint_of(report.url)
    message = request_bytes("POST", endpoint, *_request(report.url, name, credentials))
    connection = await _connected(report, endpoint, allowed)
    try:
        with report.step("answer") as found:
            response = await connection.request(message)
            found.append(str(response.status))
    finally:
        connection.close()
    judge(report, response)


async def _connect(
    report: Report, client: HttpClient, endpoint: HttpTarget, addresses: list[str]
) -> Connection:
    loop = asyncio.get_running_loop()
    with report.step("connect") as found:
        line, address = await _line(addresses, endpoint.port)
        found.append(f"{address} port {endpoint.port}")
    # Closed by hand on every way out but the last: the transport owns it from then on.
    try:
        if not endpoint.is_tls:
            _, connection = await loop.create_connection(Connection, sock=line)
            return connection
        with report.step("tls") as found:
            transport, connection = await loop.create_connection(
                Connection, sock=line, ssl=client.tls_context(), server_hostname=endpoint.host
            )
            tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
            found.append(f"{tls.version()}, the certificate of {endpoint.host} is trusted")
        return connection
    except BaseException:
        line.close()
        raise


async def _line(addresses: list[str], port: int) -> tuple[socket.socket, str]:
    """Return a connection to the first of `addresses` that takes one, as a push makes it."""
    loop = asyncio.get_running_loop()
    refused: OSError | None = None
    for address in addresses:
        found = await loop.getaddrinfo(address, port, type=socket.SOCK_STREAM)
        line = socket.socket(found[0][0], socket.SOCK_STREAM)
        try:
            line.setblocking(False)
            await loop.sock_connect(line, found[0][4])
            return line, address
        except OSError as error:
            refused = refused or error
            line.close()
        except BaseException:
            line.close()
            raise
    raise refused or OSError("it has no address")


def _request(url: str, name: str, credentials: Credentials) -> tuple[dict[str, str], bytes]:
    body = orjson.dumps(sample_message(name))
    push = Push(url, body, f"msg_{token_hex(16)}", 1, TIMEOUT_S, credentials)
    return {**headers_of(push), "triggerkit-test": "1"}, body


def sample_message(endpoint: str) -> dict[str, Any]:
    """Return a message in the shape of every other one, about no row; `action` is `test`."""
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {
        "record": None,
        "changes": None,
        "action": "test",
        "metadata": {
            "table_schema": "triggerkit",
            "table_name": "test",
            "record_pks": [],
            "commit_timestamp": now,
            "commit_lsn": 0,
            "commit_idx": 0,
            "idempotency_key": f"test.{token_hex(8)}",
            "position": 0,
            "database": None,
            "consumer": None,
            "endpoint": {"name": endpoint},
            "transaction_annotations": None,
        },
    }


def judge(report: Report, response: Response) -> None:
    """Say in the report what an answer means."""
    report.status = response.status
    report.answer = _shown(response.body.decode("utf-8", "replace"))
    answer = read_answer(response.status, response.headers, response.body, is_cut=response.is_cut)
    report.ok = answer.verdict == "delivered"
    if report.ok:
        return
    if is_page(response.headers, response.body):
        report.meaning = "answered HTML: this looks like a web page, not a webhook"
    elif answer.is_unreadable:
        report.meaning = f"{answer.error}: whether all was taken cannot be told"
    elif 300 <= response.status < 400:
        where = _shown(response.headers.get("location", "elsewhere"))
        report.meaning = f"it redirects to {where}; pushes follow no redirect: use that URL"
    elif response.status >= 500:
        report.meaning = "it failed: its own log says why"
    else:
        report.meaning = _MEANINGS.get(response.status, "only 200 to 299 counts as delivered")


def _shown(text: str) -> str:
    """Return what a stranger answered, without what would steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text[:SHOWN_CHARS])


def _last(report: Report) -> str:
    return f"{report.steps[-1].name} took too long" if report.steps else "no step ended"

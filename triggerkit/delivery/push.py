"""One attempt: a POST with one deadline, and what its answer means for the batch."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from secrets import token_hex
from typing import Literal, Self

from triggerkit.delivery.credentials import Credentials
from triggerkit.delivery.failed_items import Failed, Unreadable, failed_items
from triggerkit.delivery.http.client import HttpClient
from triggerkit.delivery.http.connection import HttpError
from triggerkit.delivery.http.network import Network, checked
from triggerkit.errors import ConfigurationError
from triggerkit.events.event import Event
from triggerkit.runs.run import NewRun
from triggerkit.signature import sign

#: Answers that blame the batch's content; every other failure is the endpoint's own.
CONTENT_STATUSES = frozenset({400, 413, 422})

#: Headers that begin so are ours alone, sent or not.
RESERVED = ("webhook-", "triggerkit-")

#: How a web page begins. The content type alone does not tell one: several frameworks call every
#: answer HTML that says nothing else, the `ok` of a receiver included.
_PAGE = re.compile(rb"[\s\xef\xbb\xbf]*<(?:!doctype\s+html|html)\b", re.IGNORECASE)

#: Told of a consumer when its endpoint is gone.
GONE = "%s: the endpoint answered 410; the consumer is disabled"

Verdict = Literal["delivered", "endpoint_failed", "content_refused", "gone"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to an attempt. `status` is None when no complete answer came.

    `is_suspect`: the endpoint failed in a way that the batch may have brought about, by a 5xx or
    without an answer. All other failures are its own for sure.
    """

    verdict: Verdict
    status: int | None
    error: str | None = None
    retry_after_s: float | None = None
    failed: tuple[Failed, ...] = ()
    is_suspect: bool = False
    #: Whether it came, and could not be read: a smaller batch may bring one that can.
    is_unreadable: bool = False
    #: The runs that the direct way has still to make of what it took.
    runs: tuple[NewRun, ...] = ()
    #: The events that the way into Kafka has still to write of what it took.
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Push:
    """The request of one attempt."""

    url: str
    body: bytes
    batch_id: str
    attempt: int
    timeout_s: float
    credentials: Credentials


class Pusher:
    """Sends pushes over kept-alive connections; follows no redirect and knows no proxy."""

    def __init__(self, allowed: tuple[Network, ...]) -> None:
        self._client = HttpClient(checked(allowed))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._client.close()

    async def send(self, push: Push) -> Answer:
        """Make one attempt. Every fault becomes an `Answer`; only cancellation is raised."""
        if push.credentials.problem is not None:
            return _unanswered(push.credentials.problem, is_suspect=False)
        try:
            headers = headers_of(push)
            async with asyncio.timeout(push.timeout_s):
                response = await self._client.request("POST", push.url, headers, push.body)
        except TimeoutError:
            return _unanswered(f"no answer within {push.timeout_s:g} s")
        except HttpError as error:
            return _unanswered(str(error), is_suspect=error.was_sent)
        except ConfigurationError as error:
            return _unanswered(str(error), is_suspect=False)
        return read_answer(response.status, response.headers, response.body, is_cut=response.is_cut)


def headers_of(push: Push) -> dict[str, str]:
    """Return the headers of one attempt: the endpoint's, and over them our own."""
    given = {name.lower(): value for name, value in push.credentials.headers.items()}
    now = int(time.time())
    own = {
        "content-type": "application/json",
        "webhook-id": push.batch_id,
        "webhook-timestamp": str(now),
        "triggerkit-attempt": str(push.attempt),
        "traceparent": traceparent(push.batch_id),
    }
    if push.credentials.signing_secrets:
        own["webhook-signature"] = sign(
            push.credentials.signing_secrets, push.batch_id, now, push.body
        )
    foreign = {name: value for name, value in given.items() if not name.startswith(RESERVED)}
    return {"user-agent": "triggerkit", **foreign, **own}


def traceparent(batch_id: str) -> str:
    """Return the trace an attempt belongs to: its batch's, the same each time; and a span of its
    own.

    Source: W3C Trace Context, version 00.
    """
    trace_id = hashlib.sha256(batch_id.encode()).hexdigest()[:32]
    return f"00-{trace_id}-{token_hex(8)}-01"


def _unanswered(error: str, *, is_suspect: bool = True) -> Answer:
    return Answer("endpoint_failed", None, error, is_suspect=is_suspect)


def read_answer(
    status: int, headers: Mapping[str, str], body: bytes, *, is_cut: bool = False
) -> Answer:
    """Judge an answer: only 2xx is success, and it may still name failed items.

    A web page is no success: a login, or what answers every path so, took nothing. Nor is an answer
    that may name failed items which cannot be read, `is_cut` or not.
    """
    if 200 <= status < 300 and is_page(headers, body):
        problem = f"answered {status} with HTML, not a webhook's answer: is the URL right?"
        return Answer("endpoint_failed", status, problem)
    if 200 <= status < 300:
        try:
            return Answer("delivered", status, failed=failed_items(headers, body, is_cut=is_cut))
        except Unreadable as problem:
            return unreadable(status, str(problem))
    error = f"answered {status}"
    if status == 410:
        return Answer("gone", status, error)
    if status in CONTENT_STATUSES:
        return Answer("content_refused", status, error)
    wait_s = retry_after(headers.get("retry-after"), headers.get("date"))
    return Answer("endpoint_failed", status, error, wait_s, is_suspect=500 <= status < 600)


def unreadable(status: int | None, problem: str) -> Answer:
    """Return the answer of an endpoint that may have said which items failed."""
    error = f"answered {status}, but {problem}"
    return Answer("endpoint_failed", status, error, is_suspect=True, is_unreadable=True)


def of_batch(answer: Answer, keys: Collection[str]) -> Answer:
    """Return the answer to a batch with the idempotency keys `keys`: it names no others as
    failed."""
    if all(item.idempotency_key in keys for item in answer.failed):
        return answer
    return unreadable(answer.status, "it names items as failed that were not sent")


def is_page(headers: Mapping[str, str], body: bytes) -> bool:
    """Return whether an answer is a web page."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type in ("text/html", "application/xhtml+xml") and _PAGE.match(body) is not None


def retry_after(value: str | None, date: str | None = None) -> float | None:
    """Return the seconds to wait as a Retry-After header asks: a number or an HTTP date.

    A date counts from the answer's own `date`, since the clocks of two machines differ.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
        return None if math.isnan(seconds) else max(0.0, seconds)
    except ValueError:
        pass
    try:
        now_s = time.time() if date is None else parsedate_to_datetime(date).timestamp()
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None

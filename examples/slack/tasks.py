"""Tells a Slack channel of orders that begin, change their status or are gone."""

import json
import os
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from pydantic import BaseModel

from triggerkit import AbortRun, Change, Queue, Retry, RetryAfter, changes, task


class Order(BaseModel):
    """A row of `orders`."""

    id: int
    customer: str
    status: str


class SlackAwayError(Exception):
    """Slack does not answer, or with a 5xx: no order is to blame."""


@task(
    on=changes("public.orders", actions=["insert", "update", "delete"], when_changed=["status"]),
    # Slack takes one message a second for each webhook.
    queue=Queue("slack", concurrency=1, rate="1/s"),
    retry=Retry(max_attempts=10, wait_for=(SlackAwayError,)),
)
def tell_slack(change: Change[Order]) -> str:
    """Post one message."""
    text = said_of(change)
    post({"text": text})
    return text


def said_of(change: Change[Order]) -> str:
    """Return what is said of a change."""
    order, old = change.record, change.changes or {}
    if change.action == "delete":
        return f"Order {order.id} of {order.customer} was removed"
    if change.action == "insert":
        return f"New order {order.id} of {order.customer}"
    return f"Order {order.id} of {order.customer}: {old.get('status', '?')} → {order.status}"


def post(message: dict[str, str]) -> None:
    """Post a message to the channel's webhook."""
    request = Request(
        os.environ["SLACK_WEBHOOK_URL"],
        json.dumps(message).encode(),
        {"content-type": "application/json"},
    )
    try:
        with urlopen(request, timeout=30):
            return
    except HTTPError as error:
        if error.code == 429:
            raise RetryAfter(float(error.headers.get("retry-after", "1"))) from error
        if error.code < 500:
            raise AbortRun(f"Slack refuses this message: {error.code}") from error
        raise SlackAwayError(f"Slack answers {error.code}") from error
    except (URLError, TimeoutError) as error:
        raise SlackAwayError("Slack does not answer") from error

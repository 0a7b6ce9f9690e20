"""Why a change that the log has made nothing happen at one of its consumers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from shlex import quote
from typing import Final

import psycopg
from psycopg.rows import class_row

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.health import tunnel_to
from triggerkit.consumers.parked.states import IN_ANY_PARTITION, IN_THE_WAY
from triggerkit.consumers.trace.changes import ConsumerTrace, Trace
from triggerkit.consumers.trace.wanted import UnwantedBy
from triggerkit.events.kafka.faults import remedy_of
from triggerkit.why.answer import Cause, Code
from triggerkit.why.run_cause import when

#: The batch under way before a change, and how its last attempt ended.
_STANDING = """
SELECT k.position, k.batch_id, k.batch_last, k.attempt, d.status, d.error, d.sent_at,
    c.last_error, e.name AS endpoint, e.url, e.disabled_at, coalesce(e.local, false) AS is_local,
    EXISTS (SELECT FROM triggerkit.open_tunnels t WHERE t.endpoint_id = e.id) AS has_tunnel
FROM triggerkit.consumers c LEFT JOIN triggerkit.endpoints e ON e.id = c.endpoint_id
LEFT JOIN triggerkit.cursors k ON k.consumer_id = c.id AND k.partition IN (%(partition)s, -1)
LEFT JOIN LATERAL (
    SELECT status, error, sent_at FROM triggerkit.deliveries
    WHERE consumer_id = c.id AND partition = k.partition AND last_position = k.batch_last
      AND batch_id = k.batch_id ORDER BY id DESC LIMIT 1) d ON true
WHERE c.id = %(consumer)s
"""

_HEAD = f"""
SELECT p.position, p.state, p.reason, p.due_at FROM triggerkit.parked p
JOIN triggerkit.parked w ON w.consumer_id = p.consumer_id AND hashtext(w.key) = hashtext(p.key)
    AND w.key = p.key
WHERE w.consumer_id = %s AND {IN_ANY_PARTITION.replace("p.", "w.")} AND w.position = %s
  AND p.state IN {IN_THE_WAY}
ORDER BY p.position LIMIT 1
"""  # noqa: S608 - of constants

_UNWANTED: Final[dict[UnwantedBy, Code]] = {
    "tables": "no_consumer",
    "actions": "action_not_wanted",
    "when_changed": "when_changed",
    "filter": "filtered",
}


@dataclass(frozen=True, slots=True)
class _Standing:
    position: int | None
    batch_id: str | None
    batch_last: int | None
    attempt: int | None
    status: int | None
    error: str | None
    sent_at: datetime | None
    last_error: str | None
    endpoint: str | None
    url: str | None
    disabled_at: datetime | None
    is_local: bool
    has_tunnel: bool


async def cause_at_consumer(
    connection: psycopg.AsyncConnection,
    consumer: Consumer,
    found: Trace,
    way: ConsumerTrace,
    public_url: str,
) -> Cause:
    """Return why the change `found` made nothing happen at `consumer`; its runs left aside."""
    name = consumer.name
    if way.state == "not wanted":
        return Cause(_UNWANTED[way.unwanted or "filter"], f"{name} does not get it: {way.reason}")
    if way.state == "parked":
        return await _of_parked(connection, consumer, found, way)
    if way.state == "before it began":
        return before_consumer(name, found.table)
    if way.state == "delivered":
        last = way.attempts[-1] if way.attempts else None
        at = "" if last is None else f" at {when(last.answered_at)}"
        url = consumer.target.url if consumer.target is not None else None
        whom = "the task's runs, which are not kept any more"
        if consumer.definition.is_kafka:
            whom = "Kafka, whose broker has its event"
        elif consumer.is_pulled:
            whom = "a caller that acknowledged it"
        elif url is not None:
            whom = f"{url}, which answered 2xx"
        return Cause("delivered", f"{name} delivered it to {whom}{at}; what became of it is there")
    if way.state == "passed":
        remedy = f"triggerkit backfill start {name} --table {quote(found.table)}"
        detail = f"the cursor of {name} is past it, and no attempt of it is kept"
        return Cause("passed", detail, remedy)
    async with connection.cursor(row_factory=class_row(_Standing)) as cursor:
        await cursor.execute(_STANDING, {"consumer": consumer.id, "partition": found.partition})
        standing = await cursor.fetchone()
    assert standing is not None
    return _of_waiting(consumer, way, standing, public_url)


def before_consumer(consumer: str, table: str) -> Cause:
    """Return that a change is older than its consumer."""
    return Cause(
        "before_consumer",
        f"it was changed before {consumer} began, which gets changes from then on",
        f"triggerkit backfill start {consumer} --table {quote(str(table))}",
    )


async def _of_parked(
    connection: psycopg.AsyncConnection, consumer: Consumer, found: Trace, way: ConsumerTrace
) -> Cause:
    parked, name = way.parked, consumer.name
    assert parked is not None
    if parked.state == "waiting":
        cursor = await connection.execute(_HEAD, [consumer.id, found.position])
        head = await cursor.fetchone()
        if head is not None and head[0] != found.position:
            position, state, reason, due_at = head
            more = f", tried again at {when(due_at)}" if state == "failing" else ""
            return Cause(
                "waiting_behind",
                f"it waits at {name} behind position {position} of its key, which is {state}: "
                f"{reason}{more}",
                f"triggerkit messages retry {name} {position}  # or: discard",
            )
    if parked.state == "superseded":
        return Cause(
            "superseded",
            f"{name} parked it, and its table was truncated after it: it is not sent any more",
            f"triggerkit messages discard {name} {found.position}",
        )
    then = {
        "failing": f"it is tried again at {when(parked.due_at)}",
        "blocked": "its attempts are used up, and its key waits",
        "dead": "its attempts are used up, and later changes went on",
        "waiting": "it goes on at once",
    }[parked.state]
    return Cause(
        "parked",
        f"{name} parked it because: {parked.reason}; {then}",
        f"triggerkit messages retry {name} {found.position}  # once its receiver takes it",
    )


def _of_waiting(
    consumer: Consumer, way: ConsumerTrace, standing: _Standing, public_url: str
) -> Cause:
    name = consumer.name
    if standing.disabled_at is not None:
        return Cause(
            "endpoint_disabled",
            f"the endpoint {standing.endpoint} of {name} is disabled: it answered 410 (gone) at "
            f"{when(standing.disabled_at)}",
            f"triggerkit endpoints enable {standing.endpoint}",
        )
    if consumer.state != "active":
        return Cause(
            "consumer_paused",
            f"{name} is {consumer.state}: nothing is delivered",
            f"triggerkit consumers resume {name}",
        )
    if way.state == "leased":
        until = "" if way.lease_until is None else f" until {when(way.lease_until)}"
        return Cause("leased", f"a caller of {name} holds it{until}, not acknowledged yet")
    if consumer.is_pulled:
        pull = f"POST /api/v1/consumers/{name}/receive"
        return Cause("to_be_pulled", f"{name} is pulled: it waits for a caller of {pull}")
    if standing.is_local and not standing.has_tunnel:
        return Cause(
            "tunnel_away",
            f"the endpoint {standing.endpoint} of {name} is local, and no tunnel to it is open: "
            "it waits for one",
            tunnel_to(standing.endpoint),
        )
    if standing.last_error is not None and standing.batch_id is None:
        return Cause("consumer_failing", f"{name} does not deliver: {standing.last_error}")
    if standing.error is not None or (
        standing.status is not None and not 200 <= standing.status <= 299
    ):
        return _of_endpoint(consumer, standing, public_url)
    if way.state == "delivering":
        return Cause("delivering", f"{name} is pushing it now")
    behind = "" if standing.position is None else f"; its cursor is at position {standing.position}"
    return Cause("waiting_for_delivery", f"{name} has not come to it yet{behind}")


def _of_endpoint(consumer: Consumer, standing: _Standing, public_url: str) -> Cause:
    """Return what is wrong with the endpoint that the batch under way waits for."""
    if consumer.definition.is_kafka:
        detail = f"{consumer.name} cannot write its event: {standing.error}"
        return Cause("consumer_failing", detail, remedy_of(standing.error or ""))
    if consumer.target is None:
        detail = f"{consumer.name} cannot make its runs: {standing.error}"
        return Cause("consumer_failing", detail, "triggerkit check")
    url = standing.url or ""
    is_ours = url.startswith(f"{public_url}/")
    since = f"since {when(standing.sent_at)}" if standing.attempt == 1 else (
        f"attempt {standing.attempt} at {when(standing.sent_at)}"
    )  # fmt: skip
    whose = f"the endpoint {standing.endpoint} of {consumer.name} ({url})"
    test = f"triggerkit endpoints test {standing.endpoint}"
    if standing.is_local:
        return Cause("endpoint_failing", f"{whose} fails: {standing.error}; {since}", test)
    if standing.status is None:
        serve = "triggerkit serve  # and keep it running"
        return Cause(
            "endpoint_down",
            f"{whose} does not answer: {standing.error}; {since}",
            serve if is_ours else f"{test}  # once what listens there is started",
        )
    if standing.status in (401, 403):
        edit = (
            f"triggerkit endpoints edit {standing.endpoint} --header "
            "'Authorization: Bearer env:TRIGGERKIT_WEBHOOK_SECRET'  # or the variable with its own"
        )
        same = "triggerkit serve  # restarted with the TRIGGERKIT_WEBHOOK_SECRET of the stream"
        return Cause(
            "endpoint_unauthorized",
            f"{whose} answers {standing.status}: it does not take the secret it is sent; {since}",
            same if is_ours else edit,
        )
    return Cause("endpoint_failing", f"{whose} fails: {standing.error}; {since}", test)

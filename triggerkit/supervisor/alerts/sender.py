"""Send alerts to a webhook: one process of the installation looks at the problems, and tells."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

import orjson
import psycopg

from triggerkit.configuration.secret_text import split_secrets
from triggerkit.delivery.credentials import Credentials
from triggerkit.delivery.http.network import reachable
from triggerkit.delivery.push import Answer, Push, Pusher
from triggerkit.errors import TriggerkitError
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.alerts.known import Alert, due, note_told, note_untold, remember, seen_in
from triggerkit.supervisor.status import read_problems

logger = logging.getLogger(__name__)

#: The advisory lock of the process that looks.
ALERTS_LOCK = 0x74726B_04

#: Seconds between two looks at the problems, and between two tries to be the one who looks.
LOOK_S = 15.0

#: Seconds that a receiver may take.
TIMEOUT_S = 10.0


async def keep_alerting(settings: Settings, look_s: float = LOOK_S) -> None:
    """Tell of problems until canceled, where a receiver is set. Whatever goes wrong is tried again:
    the process does other things beside."""
    if settings.triggerkit_alerts_url is None:
        return
    while True:
        try:
            async with await connect(settings.state_dsn, "triggerkit alerts") as connection:
                await _keep(settings, connection, look_s)
        except (psycopg.Error, TriggerkitError, ExceptionGroup) as error:
            logger.warning("problems cannot be looked at (%s); trying again", _first_line(error))
        await asyncio.sleep(look_s)


async def _keep(settings: Settings, connection: psycopg.AsyncConnection, look_s: float) -> None:
    while not await _takes_the_lead(connection):  # noqa: ASYNC110 - another process has it
        await asyncio.sleep(look_s)
    allowed = reachable(settings.triggerkit_allow_networks, settings.public_url)
    after = 0
    async with Pusher(allowed) as pusher:
        while True:
            await remember(connection, seen_in(await read_problems(settings)))
            after = await _tell_all(settings, connection, pusher, after)
            await asyncio.sleep(look_s)


async def _tell_all(
    settings: Settings, connection: psycopg.AsyncConnection, pusher: Pusher, after: int
) -> int:
    """Tell what is due, beginning behind the alert `after`, for as long as somebody answers and it
    is not time for another look; return the last that was tried."""
    until = asyncio.get_running_loop().time() + LOOK_S
    refused: list[str] = []
    for alert in await due(connection, settings.alerts_again_s, after):
        answer = await _tell(settings, pusher, alert)
        after = alert.id
        if answer.verdict == "delivered":
            await note_told(connection, alert)
        else:
            await note_untold(connection, alert)
            refused.append(answer.error or "")
        # What is answered badly holds up none of the others.
        is_away = answer.verdict != "delivered" and answer.status is None
        if is_away or asyncio.get_running_loop().time() > until:
            break
    if refused:
        logger.warning(
            "alerts that were not taken: %d (%s); they are sent again", len(refused), refused[0]
        )
    return after


async def _takes_the_lead(connection: psycopg.AsyncConnection) -> bool:
    cursor = await connection.execute("SELECT pg_try_advisory_lock(%s)", [ALERTS_LOCK])
    return await cursor.fetchone() == (True,)


async def _tell(settings: Settings, pusher: Pusher, alert: Alert) -> Answer:
    """Send an alert."""
    assert settings.triggerkit_alerts_url is not None
    secrets = tuple(split_secrets(settings.triggerkit_alerts_secret))
    return await pusher.send(
        Push(
            url=settings.triggerkit_alerts_url.get_secret_value(),
            body=body_of(alert, settings.public_url),
            batch_id=alert.message_id,
            attempt=1,
            timeout_s=TIMEOUT_S,
            credentials=Credentials(signing_secrets=secrets),
        )
    )


def body_of(alert: Alert, public_url: str) -> bytes:
    """Return what is sent: the event, its time, and the problem with its remedy."""
    return orjson.dumps(
        {
            "type": f"problem.{alert.event}",
            "timestamp": datetime.now(UTC),
            "data": {
                "id": alert.id,
                "kind": alert.kind,
                "name": alert.subject,
                "problem": alert.problem,
                "severity": alert.severity,
                "detail": alert.detail,
                "remedy": alert.remedy,
                "since": alert.since,
                "dashboard_url": f"{public_url}/dashboard/",
            },
        }
    )


def _first_line(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error).strip().partition("\n")[0] or type(error).__name__

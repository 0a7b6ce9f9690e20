"""Says once that this process lost Postgres or the transport, and once that it is back.

One idle connection to each is watched. What else in the process meets the same loss need not tell
of it: `FewWords` leaves that out, unless it lasts.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from triggerkit.runs.transport.base import TransportAway
from triggerkit.runs.transport.open import rabbitmq
from triggerkit.runs.transport.redis_rights import WATCHED
from triggerkit.runs.transport.redis_url import read_redis_url
from triggerkit.settings import Settings
from triggerkit.state.connect import connect_blocking, pinned

logger = logging.getLogger(__name__)

#: Seconds between tries to connect again.
RETRY_S = 0.25

#: Seconds a loss goes on, told of once, before others in the process tell how they fare with it,
#: and between two such reminders.
PATIENCE_S = 30.0

#: Seconds without a word of a loss after which the next one is another loss.
QUIET_S = 5.0

#: Errors of a server that refuses everybody: it shuts down, crashed, or starts.
_SERVER_AWAY = ("57P01", "57P02", "57P03")

_LOST = (
    psycopg.OperationalError,
    redis.ConnectionError,
    redis.TimeoutError,
    TransportAway,
    OSError,
)

#: A Redis that is gone without a word is noticed within half a minute, by probes: nothing
#: is asked on the connection that is watched.
_PROBES = {
    getattr(socket, name): value
    for name, value in {"TCP_KEEPIDLE": 6, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3}.items()
    if hasattr(socket, name)
}

#: Connects, yields once, and then waits for the loss, which it raises.
Hold = Callable[[], Iterator[None]]


def watch_connections(settings: Settings, away: set[str] | None = None) -> None:
    """Watch Postgres and the transport for this process, in threads that end with it; `away` holds
    the names of those that are lost, in lower case."""
    away = set() if away is None else away
    leave_losses_to_watch()
    holds: dict[str, Hold] = {
        "Postgres": partial(_hold_postgres, pinned(settings.state_dsn, "triggerkit watch")),
    }
    if (url := settings.rabbitmq_dsn) is None:
        holds["Redis"] = partial(_hold_redis, read_redis_url(settings.broker_dsn))
    else:
        module = rabbitmq("broker")
        holds["RabbitMQ"] = partial(module.hold, module.IdBroker(url))
    for service, hold in holds.items():
        name = f"watch {service}"
        threading.Thread(target=_watch, args=[service, hold, away], name=name, daemon=True).start()


def leave_losses_to_watch() -> None:
    """Have this process say little of losses: it, or its parent, watches the connections."""
    top: logging.Logger = logger
    while top.parent is not None:
        top = top.parent
    # In a process of ours our lines have handlers of their own.
    for handler in dict.fromkeys([*top.handlers, *logging.getLogger().handlers]):
        handler.addFilter(FewWords())


class FewWords(logging.Filter):
    """Leaves out warnings of lost connections until the loss has lasted; then one at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._since = self._last = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether `record` is shown."""
        if record.name == __name__ or not _is_of_loss(record):
            return True
        now = time.monotonic()
        if now - self._last > QUIET_S:
            self._since = now
        self._last = now
        if now - self._since < PATIENCE_S:
            return False
        self._since = now
        return True


def _is_of_loss(record: logging.LogRecord) -> bool:
    """Return whether it is ours and names such an error."""
    if not record.name.startswith("triggerkit."):
        return False
    arguments = record.args if isinstance(record.args, tuple) else ()
    return any(isinstance(value, _LOST) and _is_loss(value) for value in arguments)


def _is_loss(error: BaseException) -> bool:
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    return state is None or state.startswith("08") or state in _SERVER_AWAY


def _watch(service: str, hold: Hold, away: set[str]) -> None:
    is_lost = False
    while True:
        was_connected = False
        try:
            for _ in hold():
                was_connected = True
                if is_lost:
                    is_lost = False
                    away.discard(service.lower())
                    _tell(service, "restored", f"{service} is back")
        except _LOST as error:
            # A connection may end without a loss, as by a proxy's limit: the next one shows.
            if was_connected:
                continue
            if not is_lost:
                is_lost = True
                away.add(service.lower())
                _tell(service, "lost", f"lost {service} ({_reason(error)}); waiting for it")
        except (psycopg.Error, redis.RedisError) as error:
            logger.info("cannot watch the connections to %s (%s)", service, error)
            return
        time.sleep(RETRY_S)


def _tell(service: str, state: str, message: str) -> None:
    facts = {"event": "connection", "service": service, "state": state}
    logger.warning(message, extra={"facts": facts})


def _reason(error: BaseException) -> str:
    """Return the part of a connection's error that says why, without the long name of the
    server."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rsplit("failed: ", 1)[-1].removeprefix("FATAL: ").strip()


def _hold_postgres(parameters: dict[str, Any]) -> Iterator[None]:
    with connect_blocking(parameters) as connection:
        yield
        for _ in connection.notifies():
            pass


def _hold_redis(dsn: str) -> Iterator[None]:
    # Subscribed, since a server may close connections that say nothing for long.
    options: dict[str, Any] = {"socket_connect_timeout": 2, "retry": Retry(NoBackoff(), 0)}
    if not dsn.startswith("unix:"):
        options |= {"socket_keepalive": True, "socket_keepalive_options": _PROBES}
    with redis.Redis.from_url(dsn, **options) as client:
        subscription = client.pubsub()
        subscription.subscribe(WATCHED)
        for message in subscription.listen():
            if message["type"] == "subscribe":
                yield

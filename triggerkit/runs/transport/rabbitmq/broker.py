"""Dramatiq's RabbitMQ broker as triggerkit uses it: one durable queue for each task.

A message is one of Dramatiq's, and carries the ids of one or several runs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import dramatiq
import pika
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.errors import ConnectionClosed, DecodeError
from pika.exceptions import AMQPError

from triggerkit.configuration.addresses import bracketed
from triggerkit.errors import ConfigurationError
from triggerkit.runs.transport.base import TransportAway

# It tells of each failure several times, with a traceback; we tell of it once.
logging.getLogger("pika").setLevel(logging.CRITICAL)

#: What RabbitMQ, the way to it, or its client can raise.
AWAY = (AMQPError, ConnectionClosed, OSError, AssertionError)

#: Seconds a connection may take until it is there.
CONNECT_S = 2.0

#: Seconds between heartbeats: a server that says nothing for about two of them is away.
HEARTBEAT_S = 10

#: The name of the actor in our messages. Nothing executes it: workers claim the runs instead.
ACTOR = "run"

#: Most messages that one push makes of a task's runs, and most ids of one message: a few runs are
#: spread over the workers one by one, and many do not take long to push.
MESSAGES = 20
MESSAGE_IDS = 100

#: Messages of runs whose turn is over go before the others, which have priority 0.
OVERDUE = 1


class IdBroker(RabbitmqBroker):
    """Has a connection for each thread that uses it."""

    def __init__(self, url: str) -> None:
        """`url` may be several, separated by semicolons: those of a cluster.

        Raises:
            ConfigurationError: the URL cannot be read.
        """
        try:
            super().__init__(url=url.split(";"), confirm_delivery=True, middleware=[])
            for parameters in self.parameters:
                parameters.socket_timeout = parameters.stack_timeout = CONNECT_S
                parameters.blocked_connection_timeout = CONNECT_S
                parameters.heartbeat = HEARTBEAT_S
                parameters.client_properties = {"connection_name": "triggerkit"}
        except (ValueError, TypeError):
            # The library repeats parts of the URL, which may be the password's.
            raise ConfigurationError(
                "TRIGGERKIT_BROKER_URL cannot be read; it looks like "
                "amqp://user:password@host:5672/%2F"
            ) from None

    @property
    def place(self) -> str:
        """Return where it is, without its password."""
        return ", ".join(f"{bracketed(p.host)}:{p.port}/{p.virtual_host}" for p in self.parameters)

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:
        """Declare one queue, where Dramatiq would make three: nothing is delayed or dead here."""
        if queue_name not in self.queues:
            self.queues.add(queue_name)
            self.queues_pending.add(queue_name)
        if ensure and queue_name in self.queues_pending:
            self.waiting(queue_name)
            self.queues_pending.discard(queue_name)

    def waiting(self, queue_name: str) -> int:
        """Count the messages of the queue that are with no worker; make the queue where it is
        missing."""
        declared = self.channel.queue_declare(
            queue_name, durable=True, arguments={"x-max-priority": OVERDUE}
        )
        return int(declared.method.message_count)

    def push(self, queue_name: str, ids: Sequence[str], *, overdue: bool = False) -> None:
        """Send `ids`, and wait until RabbitMQ has them. What is `overdue` goes before the rest."""
        options = {"broker_priority": OVERDUE} if overdue else {}
        size = min(-(-len(ids) // MESSAGES), MESSAGE_IDS)
        for start in range(0, len(ids), size):
            part = list(ids[start : start + size])
            self.enqueue(dramatiq.Message(queue_name, ACTOR, (part,), {}, options))


def queue_of(namespace: str, task: str) -> str:
    """Return the queue of the ids of a task's ready runs."""
    return f"triggerkit:{namespace}:task:{task}:ready"


def ids_in(body: bytes) -> list[str]:
    """Return the ids that a message carries; none when it is not one of ours."""
    try:
        [ids] = dramatiq.Message.decode(body).args
    except (DecodeError, TypeError, ValueError):
        return []
    return [run_id for run_id in ids if isinstance(run_id, str)] if isinstance(ids, list) else []


def as_away(error: BaseException) -> TransportAway:
    """Return the error of the client as ours, by the innermost one: the outer ones say less."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    cause = getattr(error, "exception", None)
    return TransportAway(str(cause or error) or type(error).__name__)


def hold(broker: IdBroker) -> Iterator[None]:
    """Connect, yield once, and wait for the loss of the connection.

    Raises:
        TransportAway: it cannot be made, or is lost.
    """
    try:
        connection: pika.BlockingConnection = broker.connection
        yield
        while True:
            connection.process_data_events(time_limit=HEARTBEAT_S)
    except AWAY as error:
        raise as_away(error) from error
    finally:
        del broker.connection

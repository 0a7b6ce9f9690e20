"""The Dramatiq broker: hands the runs of an intake to Dramatiq's threads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dramatiq
from dramatiq.broker import Consumer, MessageProxy

from triggerkit.runs.run import ClaimedRun
from triggerkit.worker.intake import Intake

#: The one queue Dramatiq sees; the runs' own queues are lists in Redis.
DRAMATIQ_QUEUE = "runs"


class RunBroker(dramatiq.Broker):
    """Consumes runs. Nothing is enqueued through it: `.trigger()` accepts runs in Postgres."""

    def __init__(self, intake: Intake) -> None:
        super().__init__(middleware=[])
        self._intake = intake

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30000) -> RunConsumer:  # noqa: ARG002
        return RunConsumer(self._intake)

    def declare_queue(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = None
            self.emit_after("declare_queue", queue_name)

    def declare_actor(self, actor: dramatiq.Actor[..., Any]) -> None:
        self.emit_before("declare_actor", actor)
        self.declare_queue(actor.queue_name)
        self.actors[actor.actor_name] = actor
        self.emit_after("declare_actor", actor)

    def get_declared_queues(self) -> set[str]:
        return set(self.queues)

    def get_declared_delay_queues(self) -> set[str]:
        return set()

    def enqueue(
        self, message: dramatiq.Message[Any], *, delay: int | None = None
    ) -> dramatiq.Message[Any]:
        raise NotImplementedError("runs are triggered with Task.trigger, not sent to the broker")


class RunConsumer(Consumer):
    """Dramatiq's side of an intake. It keeps nothing, so that nothing is lost with it."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def __next__(self) -> MessageProxy | None:
        run = self._intake.next()
        return None if run is None else _message(run)

    def ack(self, message: MessageProxy) -> None:  # noqa: ARG002
        self._intake.done()

    def nack(self, message: MessageProxy) -> None:
        self.ack(message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Nothing to do: a worker stops only once its intake is drained."""


def _message(run: ClaimedRun) -> MessageProxy:
    # The run itself travels with the message: it is never encoded, as nothing is enqueued.
    message: dramatiq.Message[Any] = dramatiq.Message(
        queue_name=DRAMATIQ_QUEUE,
        actor_name=run.task,
        args=(run,),
        kwargs={},
        options={},
        message_id=run.id,
        message_timestamp=0,
    )
    return MessageProxy(message)

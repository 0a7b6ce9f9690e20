"""A member of the group that delivers: Kafka tells it which partitions it has, and what comes."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict
from collections.abc import Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

from pydantic import SecretStr

from triggerkit.errors import ConfigurationError
from triggerkit.events.kafka.client import confluent
from triggerkit.events.kafka.faults import fault_of, more_telling
from triggerkit.kafkalog.message import placed
from triggerkit.kafkalog.stored import reader_properties
from triggerkit.log.entry import Entry

logger = logging.getLogger(__name__)

#: Seconds after which a member that is not heard of has no partitions any more, and between two
#: signs of it.
SESSION_S: Final = 10.0
_BEAT_S: Final = 2.0

#: Messages that are taken at once, and seconds that they are waited for.
_TOGETHER: Final = 1000
_POLL_S: Final = 0.2


T = TypeVar("T")


class Deliverer(Protocol):
    """What is done with partitions; called from the loop that the member was made in."""

    async def claim(self, partitions: Collection[int]) -> Mapping[int, int]:
        """Take the partitions, whoever has them; return the offsets from which on to be told."""

    async def begin(self) -> None:
        """Deliver: Kafka says that the claim is of the present members."""

    async def stand_by(self) -> None:
        """Have nothing to deliver: there are more members than partitions."""

    async def end(self, *, in_order: bool) -> None:
        """Deliver no more; in order, what is under way is ended before."""

    async def came(self, entries: Mapping[int, list[Entry]]) -> None:
        """Take in what came, by partition."""


class Member:
    """One member, in a thread of its own, from `start` to `leave`.

    A claim counts once Kafka has taken a commit of the group after it: a member of an earlier
    generation is refused there, so it cannot begin with what another has by now.
    """

    def __init__(self, settings: Mapping[str, SecretStr], topic: str, deliverer: Deliverer) -> None:
        self._module = confluent()
        self._refusal: type[Exception] = self._module.KafkaException
        self._deliverer = deliverer
        self._topic = topic
        self._loop = asyncio.get_running_loop()
        self._is_ending = False
        self._last_error: Any = None
        #: Of this thread's last partitions: whether their claim counts.
        self._has_begun = False
        properties = {
            **reader_properties(settings, topic),
            "enable.partition.eof": "false",
            "session.timeout.ms": str(int(SESSION_S * 1000)),
            "heartbeat.interval.ms": str(int(_BEAT_S * 1000)),
            "partition.assignment.strategy": "range",
            "error_cb": self._failed,
        }
        try:
            self._consumer = self._module.Consumer(properties)
        except self._refusal as error:
            problem = error.args[0].str()
            raise ConfigurationError(f"Kafka's client refuses a setting: {problem}") from None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="kafka-member", daemon=True)

    async def run(self) -> None:
        """Be a member until canceled; then leave, in order.

        Raises:
            KafkaFault, Unreadable: it cannot go on.
        """
        self._thread.start()
        try:
            await asyncio.shield(self._ended)
        finally:
            self._is_ending = True
            await asyncio.wait({self._ended})

    # What runs in the thread.

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._consumer.subscribe(
                [self._topic],
                on_assign=self._assigned,
                on_revoke=self._revoked,
                on_lost=self._lost,
            )
            while not self._is_ending:
                self._take(self._consumer.consume(_TOGETHER, _POLL_S))
        except BaseException as raised:
            error = raised
        with suppress(Exception):
            # Leaving takes the partitions from it, in order.
            self._consumer.close()
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end, error)

    def _take(self, messages: Sequence[Any]) -> None:
        came: dict[int, list[Entry]] = defaultdict(list)
        for message in messages:
            error = message.error()
            if error is not None:
                self._told(error)
                continue
            partition = message.partition()
            came[partition].append(placed(message.value(), partition, message.offset()).entry)
        if came and self._has_begun:
            self._call(self._deliverer.came(came))

    def _assigned(self, consumer: Any, given: Sequence[Any]) -> None:
        places = {place.partition: place for place in given}
        if not places or self._is_ending:
            consumer.assign([])
            self._call(self._deliverer.stand_by())
            return
        offsets = self._call(self._deliverer.claim(places.keys()))
        for partition, offset in offsets.items():
            places[partition].offset = offset
        consumer.assign(list(places.values()))
        try:
            consumer.commit(offsets=list(places.values()), asynchronous=False)
        except self._refusal as error:
            # Whoever has them by now claims them anew; and this one is given others next.
            logger.info("partitions were given to others meanwhile: %s", error.args[0].str())
            consumer.assign([])
            return
        self._has_begun = True
        self._call(self._deliverer.begin())
        logger.info("delivering from %d partitions of the log", len(places))

    def _revoked(self, consumer: Any, _: Sequence[Any]) -> None:
        self._give_up(in_order=True)
        consumer.unassign()

    def _lost(self, consumer: Any, _: Sequence[Any]) -> None:
        self._give_up(in_order=False)
        consumer.unassign()

    def _give_up(self, *, in_order: bool) -> None:
        if self._has_begun:
            self._has_begun = False
            self._call(self._deliverer.end(in_order=in_order))

    def _told(self, error: Any) -> None:
        if error.fatal() or not (error.retriable() or error.name().startswith("_")):
            raise fault_of(more_telling(self._last_error, error), self._topic)
        self._failed(error)

    def _failed(self, error: Any) -> None:
        self._last_error = more_telling(self._last_error, error)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # What the thread calls in the loop.

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)
            # Also read when nobody waits any more.
            self._ended.exception()

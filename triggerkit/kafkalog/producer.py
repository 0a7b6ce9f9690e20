"""A producer of transactions: an append is in the topic as a whole, or not at all, and only by the
writer that began last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import SecretStr

from triggerkit.errors import ConfigurationError, Fenced
from triggerkit.events.kafka.client import confluent, producer_properties
from triggerkit.events.kafka.faults import KafkaFault, fault_of, more_telling, said
from triggerkit.events.kafka.limits import together_bytes

#: Seconds that the broker may be away in the midst of an append, before all is begun anew.
PATIENCE_S: Final = 30.0

#: Seconds of one call into the client: after it, somebody looks whether it is still wanted.
_CALL_S: Final = 1.0

#: What the broker waits for a writer in the midst of an append, in milliseconds: one of a very
#: large transaction takes long. The next writer ends it at once.
_TRANSACTION_MS: Final = 600_000

_FENCED: Final = ("_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH")

T = TypeVar("T")


class Sent(NamedTuple):
    """A message on its way into a partition."""

    partition: int
    key: bytes
    value: bytes


class TransactionalProducer:
    """Writes into one topic, by one thread. Used in one event loop.

    Guarantee: what `commit` returned for is with the brokers, in the order of `send`; after an
    error nothing since the last `commit` is visible, unless the error came from `commit` itself:
    then it is known once the next writer has begun.
    """

    def __init__(self, settings: Mapping[str, SecretStr], topic: str, limit_bytes: int) -> None:
        module = confluent()
        given = producer_properties(settings)
        batch = min(int(given["batch.size"]), together_bytes(limit_bytes))
        properties = {
            **given,
            "batch.size": str(batch),
            "linger.ms": "0",
            "transactional.id": topic,
            "transaction.timeout.ms": str(_TRANSACTION_MS),
            "message.timeout.ms": str(int(PATIENCE_S * 1000)),
            "queue.buffering.max.messages": "1000000",
            "error_cb": self._failed,
        }
        self._topic = topic
        self._module = module
        self._refusal: type[Exception] = module.KafkaException
        self._last_error: Any = None
        self._is_begun = False
        self._is_ending = False
        try:
            self._producer: Any = module.Producer(properties)
        except module.KafkaException as error:
            problem = error.args[0].str()
            raise ConfigurationError(f"Kafka's client refuses a setting: {problem}") from None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kafka-log")

    async def take_over(self) -> None:
        """Become the writer: whoever was it is refused from now on, and what it had not committed
        is gone.

        Raises:
            KafkaFault: the broker does not answer.
        """
        await self._in_thread(lambda: self._call(self._producer.init_transactions, _CALL_S))

    async def send(self, messages: Sequence[Sent]) -> None:
        """Hand over messages of the append that is under way.

        Raises:
            KafkaFault, Fenced: they cannot be written.
        """
        if messages:
            await self._in_thread(lambda: self._send(messages))

    async def commit(self, messages: Sequence[Sent]) -> None:
        """Hand over messages, and return once all since the last commit are with the brokers.

        Raises:
            KafkaFault, Fenced: they are not, or it is not known.
        """
        if messages or self._is_begun:
            await self._in_thread(lambda: self._commit(messages))

    async def close(self) -> None:
        """Let go; what is not committed is dropped by the next writer."""
        self._is_ending = True
        with suppress(RuntimeError):
            await self._in_thread(self._end)
        self._thread.shutdown(wait=False)

    def _send(self, messages: Sequence[Sent]) -> None:
        if not self._is_begun:
            self._call(self._producer.begin_transaction)
            self._is_begun = True
        produce, topic = self._producer.produce, self._topic
        for partition, key, value in messages:
            while True:
                try:
                    produce(topic, value, key, partition)
                    break
                except BufferError:
                    self._require_wanted()
                    self._producer.poll(0.1)
                except self._refusal as error:
                    raise self._fault_of(error) from None

    def _commit(self, messages: Sequence[Sent]) -> None:
        self._send(messages)
        self._call(self._producer.commit_transaction, _CALL_S)
        self._is_begun = False
        self._last_error = None

    def _call(self, work: Callable[..., object], *given: float) -> None:
        """Call the client, again as long as it says that this may help."""
        until = monotonic() + PATIENCE_S
        while True:
            self._require_wanted()
            try:
                work(*given)
                return
            except self._refusal as error:
                if not error.args[0].retriable() or error.args[0].txn_requires_abort():
                    raise self._fault_of(error) from None
                if monotonic() >= until:
                    raise self._fault_of(error) from None

    def _require_wanted(self) -> None:
        if self._is_ending:
            raise KafkaFault(said("the writer is ending"))

    def _fault_of(self, raised: Exception) -> Exception:
        error = raised.args[0]
        if error.name() in _FENCED:
            return Fenced("another stream writes this log now")
        return fault_of(more_telling(self._last_error, error), self._topic)

    def _end(self) -> None:
        with suppress(self._refusal):
            self._producer.purge(in_queue=True, in_flight=True, blocking=False)
            self._producer.flush(_CALL_S)
        self._producer = None

    def _failed(self, error: Any) -> None:
        self._last_error = more_telling(self._last_error, error)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

"""A producer that keeps the order of each key, whatever fails, in a thread that Kafka calls.

What was handed over stays with the client until the broker has it: an outage is waited through, and
nothing is handed over a second time meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from pydantic import SecretStr

from triggerkit.errors import ConfigurationError
from triggerkit.events.kafka.client import (
    batch_bytes,
    confluent,
    is_compressing,
    producer_properties,
)
from triggerkit.events.kafka.faults import KafkaFault, fault_of, more_telling, said
from triggerkit.events.kafka.record import Record

logger = logging.getLogger(__name__)

#: Seconds between two looks of the thread at whether it is to end.
_POLL_S: Final = 0.1

#: Seconds until there is room again in the client's queue.
_FULL_S: Final = 0.02

#: Records that are handed over before others have a turn.
_TOGETHER: Final = 200

#: Seconds that an end waits for the client to let go of what it has.
_END_S: Final = 1.0


#: The code of everything that a broken client is asked for.
_FATAL: Final = "_FATAL"


class Line:
    """The records of one partition of the log on their way: those before are settled first."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._flying = 0
        #: Set while nothing is under way.
        self.is_settled = asyncio.Event()
        self.is_settled.set()
        #: What the broker has of the batch that is not over yet, by offset and whether it has a
        #: value.
        self.taken: set[tuple[int, bool]] = set()
        self.errors: list[tuple[Any, Record]] = []

    @property
    def is_as_new(self) -> bool:
        """Whether nothing is under way, and the broker has nothing of a batch that is not over."""
        return not self._flying and not self.taken

    def handing_over(self, count: int = 1) -> None:
        """Count records that are about to be handed over."""
        with self._lock:
            self._flying += count
        self.is_settled.clear()

    def took_back(self, count: int = 1) -> None:
        """Note that the client did not take them."""
        self._less(count)

    def answered(self, record: Record, error: Any, _: Any) -> None:
        """Note what became of a record; called by the thread."""
        if error is None:
            self.taken.add((record.offset, record.value is not None))
        else:
            self.errors.append((error, record))
        self._less(1)

    def left_of(self, records: Sequence[Record]) -> list[Record]:
        """Return what of `records` is still to be sent: of each key all from the first on that the
        broker does not have, since it would come after later ones otherwise."""
        if not self.taken:
            return list(records)
        left: list[Record] = []
        open_keys: set[tuple[str, str | None]] = set()
        for record in records:
            is_taken = (record.offset, record.value is not None) in self.taken
            if not is_taken or record.order_key in open_keys:
                open_keys.add(record.order_key)
                left.append(record)
        return left

    async def settle(self, wait_s: float) -> bool:
        """Return once nothing is under way; False after `wait_s` in which nothing was answered: a
        broker that is slow is waited for."""
        while not self.is_settled.is_set():
            before = self._flying
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self.is_settled.wait()
            if not self.is_settled.is_set() and self._flying == before:
                return False
        return True

    def _less(self, count: int) -> None:
        with self._lock:
            self._flying -= count
            if self._flying:
                return
        with suppress(RuntimeError):
            # The loop may be closed: nobody waits any more.
            self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        if not self._flying:
            self.is_settled.set()


class _Client:
    """Kafka's own producer, and the thread that it calls."""

    def __init__(self, properties: Mapping[str, str]) -> None:
        module = confluent()
        #: Bytes that it sends together at most; a message alone may have more.
        self.together_bytes = batch_bytes(properties)
        self.last_error: Any = None
        #: Whether it can be used no more.
        self.is_broken = False
        self._is_ending = False
        try:
            self._producer: Any = module.Producer({**properties, "error_cb": self._failed})
        except module.KafkaException as error:
            problem = error.args[0].str()
            raise ConfigurationError(f"Kafka's client refuses a setting: {problem}") from None
        self._refusal: type[Exception] = module.KafkaException
        self._gone: Any = module.KafkaError(module.KafkaError._DESTROY)
        self._thread = threading.Thread(target=self._poll, name="kafka", daemon=True)
        self._thread.start()

    def takes(self, line: Line, record: Record) -> bool:
        """Hand over a record that `line` has counted; False when there is no room for it."""
        if self._producer is None:
            line.answered(record, self.last_error or self._gone, None)
            return True
        try:
            self._producer.produce(
                record.topic,
                record.value,
                record.key,
                on_delivery=partial(line.answered, record),
                timestamp=record.timestamp,
                headers=list(record.headers),
            )
        except BufferError:
            return False
        except self._refusal as error:
            self._failed(error.args[0])
            # Once it is broken, it says no more than that.
            cause = self.last_error if self.is_broken else error.args[0]
            line.answered(record, cause or error.args[0], None)
        return True

    def end(self) -> None:
        """Drop what the broker does not have yet, and let go of everything."""
        with suppress(self._refusal):
            self._producer.purge(in_queue=True, in_flight=True, blocking=False)
            self._producer.flush(_END_S)
        self._is_ending = True
        self._thread.join()
        # It knows us, too: its threads and connections would stay until somebody looks for that.
        self._producer = None

    def _poll(self) -> None:
        while not self._is_ending:
            try:
                self._producer.poll(_POLL_S)
            except self._refusal as error:
                self._failed(error.args[0])

    def _failed(self, error: Any) -> None:
        is_broken = error.fatal() or error.name() == _FATAL
        if is_broken and not self.is_broken:
            logger.warning("Kafka's client is made anew: %s", error.str())
            self.is_broken = True
        self.last_error = more_telling(self.last_error, error)


class EventProducer:
    """Hands records over to Kafka's client and waits for the broker. Used in one event loop."""

    def __init__(self, settings: Mapping[str, SecretStr]) -> None:
        self._properties = producer_properties(settings)
        self.is_compressing = is_compressing(self._properties)
        #: Bytes that are sent together at most: what all topics take.
        self.together_bytes = batch_bytes(self._properties)
        self._lines: dict[Hashable, Line] = {}
        self._client: _Client | None = None

    def open(self) -> _Client:
        """Make the client, unless there is one; it connects by itself.

        Raises:
            ConfigurationError: a property is wrong, or the client is not installed.
        """
        if self._client is None:
            together = min(self.together_bytes, batch_bytes(self._properties))
            self._client = _Client({**self._properties, "batch.size": str(together)})
        return self._client

    async def send(
        self,
        line_name: Hashable,
        records: Sequence[Record],
        wait_s: float,
        *,
        are_apart: bool = False,
    ) -> None:
        """Return once the broker has all of `records`, in the order of each key; if they are to be
        apart, each is sent once it has the one before.

        Called again with the same records after a fault, it goes on where it was.

        Raises:
            KafkaFault: it has not, and answered nothing for `wait_s`, or it refuses some.
        """
        line = self._lines.setdefault(line_name, Line(asyncio.get_running_loop()))
        try:
            await self._send(line, records, wait_s, are_apart=are_apart)
        except KafkaFault:
            if line.is_as_new:
                # Nobody may come back to it: a parked message can be discarded.
                del self._lines[line_name]
            raise
        del self._lines[line_name]
        if self._client is not None:
            self._client.last_error = None

    async def _send(
        self, line: Line, records: Sequence[Record], wait_s: float, *, are_apart: bool
    ) -> None:
        await self._settle(line, wait_s)
        line.errors.clear()
        if self._client is not None and self._client.is_broken:
            await self.close()
        await self._keep_to_size(wait_s)
        left = line.left_of(records)
        for some in [[record] for record in left] if are_apart else [left]:
            are_all = await self._hand_over(line, some, wait_s)
            await self._settle(line, wait_s)
            if line.errors:
                error, record = line.errors[0]
                raise fault_of(error, record.topic)
            if not are_all:
                raise KafkaFault(said("the broker does not answer"))

    async def close(self) -> None:
        """End the client; what the broker does not have yet is dropped."""
        client, self._client = self._client, None
        if client is not None:
            await asyncio.to_thread(client.end)

    async def _settle(self, line: Line, wait_s: float) -> None:
        if not await line.settle(wait_s):
            error = None if self._client is None else self._client.last_error
            raise (
                KafkaFault(said("the broker does not answer")) if error is None else fault_of(error)
            )

    async def _keep_to_size(self, wait_s: float) -> None:
        """Have a client that sends no more together than all topics take: the size of one that is
        there cannot be changed."""
        client = self._client
        if client is None or client.together_bytes <= self.together_bytes:
            return
        for line in [*self._lines.values()]:
            await self._settle(line, wait_s)
        if self._client is client:
            await self.close()

    async def _hand_over(self, line: Line, records: Sequence[Record], wait_s: float) -> bool:
        """Return whether the client took them all."""
        client, now = self.open(), asyncio.get_running_loop().time
        deadline = now() + wait_s
        # One more than there are: until all are handed over, the line is not settled.
        left = len(records) + 1
        line.handing_over(left)
        try:
            for number, record in enumerate(records, start=1):
                while not client.takes(line, record):
                    if now() > deadline:
                        return False
                    await asyncio.sleep(_FULL_S)
                left -= 1
                if number % _TOGETHER == 0:
                    await asyncio.sleep(0)
            return True
        finally:
            line.took_back(left)

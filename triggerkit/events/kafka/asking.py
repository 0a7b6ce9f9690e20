"""Ask Kafka what there is to read: its cluster, the topics' partitions, and their offsets.

Kafka's client answers in threads of its own; who asks waits in one of ours. What was answered, and
that nothing was, holds for a moment: a broker that is away is not asked by each request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic, sleep
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import SecretStr

from triggerkit.errors import ConfigurationError
from triggerkit.events.kafka.client import admin_properties, confluent
from triggerkit.events.kafka.faults import (
    MAY_NOT_READ,
    PASSING,
    SILENT,
    KafkaFault,
    fault_of,
    more_telling,
    said,
)
from triggerkit.events.source import Bounds, TopicPartition
from triggerkit.events.topics import Topic

logger = logging.getLogger(__name__)

#: Seconds that one question may take: somebody waits for the answer.
ASK_S: Final = 3.0

#: Seconds that an answer about the cluster and its topics holds, or the lack of one.
KNOWN_S: Final = 1.0

#: Seconds that a partition without a leader is asked again, and between two times.
PASSES_S: Final = 2.0
_AGAIN_S: Final = 0.1

#: Questions that are asked at the same time.
_THREADS: Final = 4

_NOT_THERE: Final = ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION")

#: What says that nothing would be answered now, rather than this.
_OF_CLUSTER: Final = (
    "_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_TIMED_OUT", "REQUEST_TIMED_OUT", "_SSL",
    "_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "_TIMED_OUT_QUEUE",
)  # fmt: skip

T = TypeVar("T")


class _Away(KafkaFault):
    """The cluster does not answer, whatever it is asked."""


class SeenTopics(NamedTuple):
    """The declared topics as Kafka has them. One that it does not have yet is `missing`, with the
    partitions that it will be made with; what keeps others from being read is in `faults`. `ids`
    tell them from earlier ones of their names."""

    partitions: dict[str, int]
    missing: frozenset[str]
    faults: dict[str, KafkaFault]
    ids: dict[str, str]


class Asking:
    """Asks one cluster. Used in one event loop."""

    def __init__(self, settings: Mapping[str, SecretStr]) -> None:
        properties = admin_properties(settings)
        self._module = confluent("confluent_kafka.admin")
        self._refusal: type[Exception] = confluent().KafkaException
        try:
            self._admin = self._module.AdminClient({**properties, "error_cb": self._failed})
        except self._refusal as error:
            problem = error.args[0].str()
            raise ConfigurationError(f"Kafka's client refuses a setting: {problem}") from None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="kafka-asking")
        self._one_asks = asyncio.Lock()
        self._last_error: Any = None
        #: Of the last answer: when it came, or why there was none.
        self._answered_at = 0.0
        self._away: _Away | None = None
        self._told = ""
        self._cluster_id = ""
        self._topics: tuple[tuple[Topic, ...], SeenTopics] | None = None
        self._looked_at = -KNOWN_S

    async def cluster(self) -> str:
        """Return the cluster's id.

        Raises:
            KafkaFault: it is not reached, or was not a moment ago.
        """
        async with self._one_asks:
            if not self._cluster_id or monotonic() - self._answered_at >= KNOWN_S:
                self._cluster_id = await self._ask(self._describe_cluster)
            return self._cluster_id

    async def topics(self, declared: Sequence[Topic]) -> SeenTopics:
        """Return the declared topics as they are there.

        Raises:
            KafkaFault: Kafka does not answer.
        """
        wanted = tuple(declared)
        async with self._one_asks:
            known = self._topics
            if known is None or known[0] != wanted or monotonic() - self._looked_at >= KNOWN_S:
                known = wanted, await self._ask(lambda: self._describe(wanted))
                self._topics, self._looked_at = known, monotonic()
        return known[1]

    async def bounds(self, keys: Collection[TopicPartition]) -> dict[TopicPartition, Bounds]:
        """Return the bounds of partitions: of one that is gone meanwhile those of an empty one.

        Raises:
            KafkaFault: Kafka does not answer.
        """
        if not keys:
            return {}
        spec = self._module.OffsetSpec
        return await self._ask(lambda: self._bounds(keys, spec.earliest(), spec.latest()))

    async def ends(self, keys: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Return where the next message comes in each partition.

        Raises:
            KafkaFault: Kafka does not answer.
        """
        return await self._offsets(keys, self._module.OffsetSpec.latest())

    async def since(self, key: TopicPartition, milliseconds: int) -> int | None:
        """Return the first offset of a partition whose message is of that time or later.

        Raises:
            KafkaFault: Kafka does not answer.
        """
        spec = self._module.OffsetSpec.for_timestamp(milliseconds)
        offset = (await self._offsets([key], spec))[key]
        return None if offset < 0 else offset

    def forget(self) -> None:
        """Ask anew of the topics when they are needed next."""
        self._looked_at = -KNOWN_S

    async def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _offsets(
        self, keys: Collection[TopicPartition], spec: Any
    ) -> dict[TopicPartition, int]:
        if not keys:
            return {}
        return await self._ask(lambda: self._answers(keys, spec))

    async def _ask(self, question: Callable[[], T]) -> T:
        def ask() -> T:
            # It may have waited for its turn while others got no answer.
            self._require_not_away()
            self._admin.poll(0)
            try:
                answer = question()
            except _Away as away:
                self._note(away)
                raise
            self._note(None)
            return answer

        self._require_not_away()
        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)

    def _require_not_away(self) -> None:
        away = self._away
        if away is not None and monotonic() - self._answered_at < KNOWN_S:
            raise _Away(str(away))

    def _note(self, away: _Away | None) -> None:
        self._away, self._answered_at = away, monotonic()
        if away is None:
            # What it told before was of another time.
            self._told, self._last_error = "", None
            return
        # It may be another when it is back.
        self._cluster_id = ""
        if str(away) != self._told:
            self._told = str(away)
            logger.warning("no events are read: %s", away)

    def _failed(self, error: Any) -> None:
        self._last_error = more_telling(self._last_error, error)

    def _describe_cluster(self) -> str:
        found = self._result(self._admin.describe_cluster(request_timeout=ASK_S))
        return str(found.cluster_id)

    def _describe(self, declared: Sequence[Topic]) -> SeenTopics:
        partitions, missing, faults, ids = {}, set(), {}, {}
        answers: Mapping[str, Future[Any]] = {}
        if declared:
            names = confluent().TopicCollection([topic.name for topic in declared])
            answers = self._admin.describe_topics(names, request_timeout=ASK_S)
        for topic in declared:
            try:
                found = answers[topic.name].result(timeout=2 * ASK_S)
            except self._refusal as error:
                code = error.args[0].name()
                if code in _NOT_THERE:
                    missing.add(topic.name)
                    partitions[topic.name] = topic.partitions
                elif code == "TOPIC_AUTHORIZATION_FAILED":
                    faults[topic.name] = KafkaFault(said(MAY_NOT_READ, "", topic.name))
                else:
                    raise self._fault_of(error.args[0]) from None
            except TimeoutError:
                raise self._silence() from None
            else:
                partitions[topic.name] = len(found.partitions)
                ids[topic.name] = str(found.topic_id)
        return SeenTopics(partitions, frozenset(missing), faults, ids)

    def _bounds(
        self, keys: Collection[TopicPartition], earliest: Any, latest: Any
    ) -> dict[TopicPartition, Bounds]:
        # Both are under way at the same time.
        asked = self._listed(keys, earliest), self._listed(keys, latest)
        firsts = self._answers(keys, earliest, asked[0])
        ends = self._answers(keys, latest, asked[1])
        return {key: Bounds(first, max(first, ends[key])) for key, first in firsts.items()}

    def _listed(self, keys: Collection[TopicPartition], spec: Any) -> Mapping[Any, Future[Any]]:
        module = confluent()
        found: Mapping[Any, Future[Any]] = self._admin.list_offsets(
            {module.TopicPartition(*key): spec for key in keys},
            isolation_level=module.IsolationLevel.READ_COMMITTED,
            request_timeout=ASK_S,
        )
        return found

    def _answers(
        self,
        keys: Collection[TopicPartition],
        spec: Any,
        asked: Mapping[Any, Future[Any]] | None = None,
    ) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = {}
        until = monotonic() + PASSES_S
        while True:
            is_passing = False
            for place, answer in (asked or self._listed(keys, spec)).items():
                offset = self._offset(place.topic, answer, passes=monotonic() < until)
                if offset is None:
                    is_passing = True
                else:
                    found[place.topic, place.partition] = offset
            if not is_passing:
                return found
            sleep(_AGAIN_S)
            asked, keys = None, [key for key in keys if key not in found]

    def _offset(self, topic: str, answer: Future[Any], *, passes: bool) -> int | None:
        """Return what was answered of a partition; None of what `passes` by itself."""
        try:
            return int(answer.result(timeout=2 * ASK_S).offset)
        except self._refusal as error:
            code = error.args[0].name()
            if code in PASSING and passes:
                return None
            if code not in _NOT_THERE:
                raise self._fault_of(error.args[0], topic) from None
            # It was deleted since it was seen.
            self.forget()
            return 0
        except TimeoutError:
            raise self._silence() from None

    def _result(self, answer: Future[Any]) -> Any:
        try:
            return answer.result(timeout=2 * ASK_S)
        except self._refusal as error:
            raise self._fault_of(error.args[0]) from None
        except TimeoutError:
            raise self._silence() from None

    def _fault_of(self, error: Any, topic: str | None = None) -> KafkaFault:
        if error.name() == "TOPIC_AUTHORIZATION_FAILED":
            return KafkaFault(said(MAY_NOT_READ, "", topic))
        fault = fault_of(error, topic)
        if error.name() not in (*_OF_CLUSTER, *PASSING):
            return fault
        # Why it is not reached is told beside it.
        self._admin.poll(0.1)
        if self._last_error is not None:
            return _Away(str(fault_of(self._last_error)))
        return _Away(str(fault)) if error.name() in _OF_CLUSTER else fault

    def _silence(self) -> KafkaFault:
        return _Away(said(SILENT))

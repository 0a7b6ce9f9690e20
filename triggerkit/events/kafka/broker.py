"""The topics of Kafka: made where they are missing, and which messages each takes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import monotonic
from typing import Any, Final

from pydantic import SecretStr

from triggerkit.errors import ConfigurationError
from triggerkit.events.kafka.client import admin_properties, confluent
from triggerkit.events.kafka.faults import (
    COLLIDES,
    NOT_SEEN,
    KafkaFault,
    more_telling,
    said,
)
from triggerkit.events.kafka.tls import connection_fault
from triggerkit.events.topics import Topic

#: Seconds that one question may take.
ASK_S: Final = 5.0

#: Seconds that what was answered of a topic holds.
KNOWN_S: Final = 60.0

#: What a topic takes where its settings may not be read: Kafka's default.
DEFAULT_BYTES: Final = 1_048_588


@dataclass(frozen=True, slots=True)
class BrokerTopic:
    """A topic as Kafka has it: its partitions, and the bytes of a message at most, as its producer
    sends it: Kafka's default where the limit is not known.

    One that `is_compacted` takes no message without a key.
    """

    partitions: int
    max_message_bytes: int
    is_limit_known: bool = True
    is_compacted: bool = False


class Broker:
    """Asks Kafka, and remembers its answers for a while."""

    def __init__(self, settings: Mapping[str, SecretStr]) -> None:
        self._properties = admin_properties(settings)
        self._known: dict[str, tuple[BrokerTopic, float]] = {}
        self._asking = asyncio.Lock()
        self._last_error: Any = None

    async def require(self, topics: Iterable[Topic]) -> Mapping[str, BrokerTopic]:
        """Return the topics as they are there; those that are missing are made.

        Raises:
            KafkaFault: the broker is not reached, or a topic is not there and may not be made.
        """
        wanted = {topic.name: topic for topic in topics}
        async with self._asking:
            oldest = monotonic() - KNOWN_S
            asked = [
                topic
                for name, topic in wanted.items()
                if name not in self._known or self._known[name][1] < oldest
            ]
            if asked:
                found = await asyncio.to_thread(self._make_and_look, asked)
                now = monotonic()
                self._known.update((name, (topic, now)) for name, topic in found.items())
        return {name: self._known[name][0] for name in wanted}

    async def look(self, topics: Sequence[Topic]) -> dict[str, BrokerTopic | None]:
        """Return the topics as they are there, None for those that are not; nothing is made.

        Raises:
            KafkaFault: the broker is not reached.
        """
        return await asyncio.to_thread(self._look, topics)

    def forget(self, names: Iterable[str]) -> None:
        """Ask anew of these topics when they are needed next."""
        for name in names:
            self._known.pop(name, None)

    @cached_property
    def _admin(self) -> Any:
        module = confluent("confluent_kafka.admin")
        try:
            return module.AdminClient({**self._properties, "error_cb": self._failed})
        except confluent().KafkaException as error:
            problem = error.args[0].str()
            raise ConfigurationError(f"Kafka's client refuses a setting: {problem}") from None

    def _failed(self, error: Any) -> None:
        self._last_error = more_telling(self._last_error, error)

    def _make_and_look(self, topics: Sequence[Topic]) -> dict[str, BrokerTopic]:
        found = self._look(topics)
        missing = [topic for topic in topics if found[topic.name] is None]
        if missing:
            self._make(missing)
            found = self._look(topics)
        for topic in topics:
            if found[topic.name] is None:
                cause = said("the topic does not exist", "", topic.name, topic.partitions)
                raise KafkaFault(cause)
        return {name: topic for name, topic in found.items() if topic is not None}

    def _look(self, topics: Sequence[Topic]) -> dict[str, BrokerTopic | None]:
        partitions = self._partitions()
        configs = self._configs([t.name for t in topics if t.name in partitions])
        return {
            topic.name: _topic(partitions[topic.name], configs[topic.name])
            if topic.name in partitions
            else None
            for topic in topics
        }

    def _partitions(self) -> dict[str, int]:
        self._last_error = None
        try:
            listed = self._admin.list_topics(timeout=ASK_S)
        except confluent().KafkaException as error:
            # Why it is not reached is told beside it.
            self._admin.poll(0.1)
            raise connection_fault(self._last_error or error.args[0], self._properties) from None
        return {
            name: len(found.partitions)
            for name, found in listed.topics.items()
            if found.error is None
        }

    def _configs(self, names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        module = confluent("confluent_kafka.admin")
        resources = [module.ConfigResource(module.ConfigResource.Type.TOPIC, n) for n in names]
        if not resources:
            return {}
        configs: dict[str, Mapping[str, Any]] = {}
        answers = self._admin.describe_configs(resources, request_timeout=ASK_S)
        for resource, answer in answers.items():
            try:
                configs[resource.name] = answer.result(timeout=2 * ASK_S)
            except (confluent().KafkaException, TimeoutError):
                # Not everybody may read them.
                configs[resource.name] = {}
        return configs

    def _make(self, topics: Sequence[Topic]) -> None:
        module = confluent("confluent_kafka.admin")
        made = [
            module.NewTopic(
                topic.name,
                num_partitions=topic.partitions,
                replication_factor=topic.replication_factor or -1,
            )
            for topic in topics
        ]
        partitions = {topic.name: topic.partitions for topic in topics}
        for name, answer in self._admin.create_topics(made, request_timeout=ASK_S).items():
            try:
                answer.result(timeout=2 * ASK_S)
            except confluent().KafkaException as error:
                if error.args[0].name() == "TOPIC_ALREADY_EXISTS":
                    continue
                detail = str(error.args[0].str()).partition("\n")[0]
                cause = "the topic does not exist, and is not made"
                if "AUTHORIZATION" in error.args[0].name():
                    cause = NOT_SEEN
                elif error.args[0].name() == "TOPIC_EXCEPTION":
                    cause = COLLIDES
                raise KafkaFault(said(cause, detail, name, partitions[name])) from None


def _topic(partitions: int, configs: Mapping[str, Any]) -> BrokerTopic:
    given = {name: str(entry.value) for name, entry in configs.items()}
    limit = given.get("max.message.bytes")
    return BrokerTopic(
        partitions=partitions,
        max_message_bytes=DEFAULT_BYTES if limit is None else int(limit),
        is_limit_known=limit is not None,
        is_compacted="compact" in given.get("cleanup.policy", ""),
    )

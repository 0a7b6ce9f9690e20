"""The topic of a database's log: its name, its making, and how large a message of it may be."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic, sleep
from typing import Any, Final, NamedTuple

import psycopg
from pydantic import SecretStr

from triggerkit.errors import ConfigurationError
from triggerkit.events.kafka.client import admin_properties, confluent
from triggerkit.events.kafka.faults import KafkaFault, fault_of, said
from triggerkit.log.entry import PARTITIONS
from triggerkit.settings import Settings

#: Seconds that one question may take, and between two that are asked until it is answered.
_ASK_S: Final = 5.0
_AGAIN_S: Final = 0.1

#: What the broker takes of a message besides key and value, at most.
OVERHEAD_BYTES: Final = 200

_INSTALLATION: Final = "SELECT id::text FROM triggerkit.installation ORDER BY created_at LIMIT 1"


class LogTopic(NamedTuple):
    """The topic of one log, and the bytes of a message that it takes at most."""

    name: str
    limit_bytes: int


async def topic_name(state: psycopg.AsyncConnection, database_id: int) -> str:
    """Return the name of a database's log: no other installation has the same in one cluster.

    It is the name of the group that delivers, and of who writes, too.
    """
    row = await (await state.execute(_INSTALLATION)).fetchone()
    assert row is not None
    return f"triggerkit-log.{row[0]}.{database_id}"


async def ensure_topic(name: str, settings: Settings) -> LogTopic:
    """Return the topic of a log, made when it is missing.

    Raises:
        ConfigurationError: it has another number of partitions, or is compacted.
        KafkaFault: the broker is not reached, or does not make it.
    """
    return await asyncio.to_thread(_ensure, name, settings)


def _ensure(name: str, settings: Settings) -> LogTopic:
    admin_module = confluent("confluent_kafka.admin")
    admin = admin_module.AdminClient(admin_properties(settings.kafka))
    partitions = _partitions(admin, name)
    if partitions is None:
        _make(admin, name, settings)
        partitions = _partitions_soon(admin, name)
    if partitions is None:
        raise KafkaFault(said("the topic does not exist", "", name, PARTITIONS))
    if partitions != PARTITIONS:
        raise ConfigurationError(
            f"the topic {name} has {partitions} partitions, and a log has {PARTITIONS}: the order "
            "of its changes would be lost; give it back its partitions, or another installation"
        )
    configs = _configs(admin, name)
    if "compact" in configs.get("cleanup.policy", ""):
        raise ConfigurationError(
            f"the topic {name} is compacted, by which changes are lost; run: kafka-configs.sh "
            f"--alter --topic {name} --add-config cleanup.policy=delete"
        )
    return LogTopic(name, int(configs.get("max.message.bytes", 1_048_588)))


def _partitions(admin: Any, name: str) -> int | None:
    try:
        found = admin.list_topics(timeout=_ASK_S).topics.get(name)
    except confluent().KafkaException as error:
        raise fault_of(error.args[0], name) from None
    return None if found is None or found.error is not None else len(found.partitions)


def _partitions_soon(admin: Any, name: str) -> int | None:
    """Return the partitions of a topic that was just made: not every broker knows it at once."""
    until = monotonic() + _ASK_S
    while (found := _partitions(admin, name)) is None and monotonic() < until:
        sleep(_AGAIN_S)
    return found


def _make(admin: Any, name: str, settings: Settings) -> None:
    module = confluent("confluent_kafka.admin")
    keep_ms = int(settings.log_keep.total_seconds() * 1000)
    config = {
        "cleanup.policy": "delete",
        "retention.ms": str(keep_ms),
        "retention.bytes": str(settings.log_max_bytes // PARTITIONS),
    }
    topic = module.NewTopic(name, num_partitions=PARTITIONS, replication_factor=-1, config=config)
    for answer in admin.create_topics([topic], request_timeout=_ASK_S).values():
        try:
            answer.result(timeout=2 * _ASK_S)
        except confluent().KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise fault_of(error.args[0], name, PARTITIONS) from None


def _configs(admin: Any, name: str) -> Mapping[str, str]:
    module = confluent("confluent_kafka.admin")
    resource = module.ConfigResource(module.ConfigResource.Type.TOPIC, name)
    [answer] = admin.describe_configs([resource], request_timeout=_ASK_S).values()
    try:
        return {key: str(entry.value) for key, entry in answer.result(timeout=2 * _ASK_S).items()}
    except (confluent().KafkaException, TimeoutError):
        # Not everybody may read them.
        return {}


def require_kafka(settings: Settings) -> Mapping[str, SecretStr]:
    """Return the settings of Kafka's client.

    Raises:
        ConfigurationError: bootstrap servers are not set.
    """
    if not settings.kafka:
        raise ConfigurationError(
            "TRIGGERKIT_LOG is kafka, and KAFKA_BOOTSTRAP_SERVERS is not set; set it"
        )
    return settings.kafka

"""The properties of Kafka's client, from the settings that begin with `KAFKA_`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from pydantic import SecretStr

from triggerkit.errors import ConfigurationError

#: How the names of properties begin that may be set. What else begins with KAFKA_ in an environment
#: is mostly of Kafka's own programs.
_PASSED: Final = (
    "bootstrap.servers", "security.", "sasl.", "ssl.", "compression.", "client.", "linger.",
    "batch.", "queue.", "socket.", "request.", "retry.", "reconnect.", "metadata.",
    "topic.metadata.", "broker.", "connections.", "message.max.", "api.version.",
)  # fmt: skip

#: How the names end that Kubernetes makes of a service, such as one that is called kafka-broker.
_OF_SERVICE: Final = re.compile(
    r"_(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)?)$"
)

#: Without these, events may be lost, come out of order, or be read by others on their way.
_FIXED: Final[Mapping[str, str]] = {
    "enable.idempotence": "true",
    "acks": "all",
    "partitioner": "murmur2_random",
    "message.timeout.ms": "0",
    "delivery.timeout.ms": "0",
    "enable.ssl.certificate.verification": "true",
    "ssl.endpoint.identification.algorithm": "https",
}

#: The largest message that the client itself lets pass: the topic's own limit is what counts.
LARGEST_BYTES: Final = 1_000_000_000

#: Bytes of one partition that the client sends together at most, where its topics take as much.
TOGETHER_BYTES: Final = 1_000_000

#: Messages of one partition that the client sends together, in milliseconds.
_LINGER_MS: Final = "5"

#: What every client of ours begins with. A broker that is back is found within the longest of the
#: waits between two connections, in milliseconds; what goes wrong is told by ourselves.
_COMMON: Final[Mapping[str, str]] = {
    "client.id": "triggerkit",
    "reconnect.backoff.ms": "100",
    "reconnect.backoff.max.ms": "2000",
    # A line that drops packets without a word is given up, and another one is tried.
    "socket.timeout.ms": "20000",
    "socket.connection.setup.timeout.ms": "10000",
    "socket.keepalive.enable": "true",
    "log_level": "2",
}

MISSING: Final = (
    "KAFKA_BOOTSTRAP_SERVERS is set, and the client of Kafka is not installed; run: pip install "
    "'triggerkit[kafka]'"
)


def confluent(module: str = "confluent_kafka") -> Any:
    """Return a module of Kafka's client.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise ConfigurationError(MISSING) from None


def client_properties(settings: Mapping[str, SecretStr]) -> dict[str, str]:
    """Return the properties of any client, by `settings` as the environment has them.

    Raises:
        ConfigurationError: one of them is fixed, and set to something else.
    """
    properties: dict[str, str] = {}
    for name, secret in settings.items():
        key = name.removeprefix("KAFKA_").lower().replace("_", ".")
        value = secret.get_secret_value()
        fixed = _FIXED.get(key)
        if fixed is not None and value.strip().lower() != fixed:
            raise ConfigurationError(
                f"{name} cannot be set: {key} is {fixed}, without which events may be lost, come "
                "out of order, or be read on their way; leave it out"
            )
        is_passed = key.startswith(_PASSED) and _OF_SERVICE.search(name) is None
        if fixed is None and is_passed:
            properties[key] = value
    return {**_COMMON, **properties}


def producer_properties(settings: Mapping[str, SecretStr]) -> dict[str, str]:
    """Return the properties of the producer.

    A message is waited for without an end: one that timed out may leave a gap before later ones.

    Raises:
        ConfigurationError: see `client_properties`.
    """
    return {
        "linger.ms": _LINGER_MS,
        "message.max.bytes": str(LARGEST_BYTES),
        "batch.size": str(TOGETHER_BYTES),
        **client_properties(settings),
        "enable.idempotence": "true",
        "acks": "all",
        "partitioner": "murmur2_random",
        "message.timeout.ms": "0",
    }


def admin_properties(settings: Mapping[str, SecretStr]) -> dict[str, str]:
    """Return the properties of a client that asks and makes: nothing of producers.

    Raises:
        ConfigurationError: see `client_properties`.
    """
    of_producers = ("compression.", "linger.", "batch.", "queue.", "message.", "request.required.")
    return {
        name: value
        for name, value in client_properties(settings).items()
        if not name.startswith(of_producers)
    }


def is_compressing(properties: Mapping[str, str]) -> bool:
    """Return whether a producer with these properties compresses what it sends."""
    # Two names of one property: the client takes what it is given last.
    given = [properties.get(f"compression.{name}", "none") for name in ("type", "codec")]
    return any(value.strip().lower() != "none" for value in given)


def batch_bytes(properties: Mapping[str, str]) -> int:
    """Return how many bytes a producer with these properties sends together at most.

    Raises:
        ConfigurationError: it is no number.
    """
    try:
        return int(properties["batch.size"])
    except ValueError:
        raise ConfigurationError("KAFKA_BATCH_SIZE is not a number of bytes") from None

"""What Kafka fails with, in words, and what mends it."""

from __future__ import annotations

import re
from typing import Any, Final

from triggerkit.errors import TriggerkitError

#: What begins a message of the client: a thread, a broker and the state of its connection.
_NOISE: Final = re.compile(
    r"\[thrd:[^\]]*\]: |(?:sasl_)?(?:plaintext|ssl)://| ?\(after \d+ms in state .*$"
)

#: The most of a message of the client that is shown.
_LONGEST: Final = 300

#: The fault of one message, not of the broker.
TOO_LARGE: Final = "the message is larger than the topic takes"

#: The fault of a message without a key: such is a truncated event.
KEYLESS: Final = "the topic is compacted, and takes no message without a key"

#: Not a fault yet: what may be too large is sent again, alone.
UNSURE: Final = "a message may be larger than the topic takes"

#: What may be wrong with a broker's certificate.
UNTRUSTED: Final = "the broker's certificate is not trusted"
NOT_ITS_NAME: Final = "the broker's certificate is for another name"
EXPIRED: Final = "the broker's certificate has expired"

#: The fault of a client that speaks to a listener of another kind, and how its message ends.
OTHER_PROTOCOL: Final = "the broker's listener speaks another protocol"
_LISTENER: Final = "listener?"

#: What only says that something was said before.
_FOLLOWING: Final = ("_ALL_BROKERS_DOWN", "_FATAL")

#: What is there for others may be hidden from one who may not see it.
NOT_SEEN: Final = "the topic is not seen, and may not be made"

#: The fault of a broker that takes too long.
SILENT: Final = "the broker does not answer"

#: The fault of who reads.
MAY_NOT_READ: Final = "the topic may not be read"

#: The fault of a topic whose brokers are away.
NO_LEADER: Final = "the topic has no leader"

#: The fault of a topic that cannot be made: to Kafka, a dot in a name is an underscore.
COLLIDES: Final = "the topic's name is too like another's"

#: The fault of a topic that demands something of messages, such as that they are not old.
NOT_VALID: Final = "the topic does not take an event as it is"

#: What passes by itself while a partition gets its leader.
PASSING: Final = (
    "NOT_LEADER_FOR_PARTITION", "LEADER_NOT_AVAILABLE", "FENCED_LEADER_EPOCH",
    "UNKNOWN_LEADER_EPOCH", "OFFSET_NOT_AVAILABLE", "REPLICA_NOT_AVAILABLE", "_NOENT",
)  # fmt: skip

#: How causes begin, by the names of the client's codes. The remedies belong to the same words.
_CAUSES: Final = {
    "_TRANSPORT": "the broker is not reached",
    "_ALL_BROKERS_DOWN": "the broker is not reached",
    "_RESOLVE": "the broker's name is not found",
    "_TIMED_OUT": SILENT,
    "REQUEST_TIMED_OUT": SILENT,
    "_AUTHENTICATION": "the broker refuses the credentials",
    "SASL_AUTHENTICATION_FAILED": "the broker refuses the credentials",
    "_SSL": "TLS fails",
    "UNKNOWN_TOPIC_OR_PART": "the topic does not exist",
    "_UNKNOWN_TOPIC": "the topic does not exist",
    "_UNKNOWN_PARTITION": "the topic does not exist",
    "TOPIC_AUTHORIZATION_FAILED": "the topic may not be written",
    "CLUSTER_AUTHORIZATION_FAILED": "the cluster does not allow it",
    "MSG_SIZE_TOO_LARGE": TOO_LARGE,
    "NOT_LEADER_FOR_PARTITION": NO_LEADER,
    "LEADER_NOT_AVAILABLE": NO_LEADER,
    "_NOENT": NO_LEADER,
    "NOT_ENOUGH_REPLICAS": "the topic has too few replicas in sync",
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND": "the topic has too few replicas in sync",
    "INVALID_TIMESTAMP": NOT_VALID,
    "INVALID_RECORD": NOT_VALID,
}

_REMEDIES: Final = {
    "the broker is not reached": "start the broker, or correct KAFKA_BOOTSTRAP_SERVERS",
    "the broker's name is not found": "correct KAFKA_BOOTSTRAP_SERVERS",
    SILENT: "see that it runs, and that KAFKA_SECURITY_PROTOCOL is its own",
    "the broker refuses the credentials": (
        "correct KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM"
    ),
    OTHER_PROTOCOL: (
        "set KAFKA_SECURITY_PROTOCOL to the listener's: plaintext, ssl, sasl_plaintext or sasl_ssl"
    ),
    UNTRUSTED: "set KAFKA_SSL_CA_LOCATION to the certificates of who signed the broker's",
    NOT_ITS_NAME: (
        "name the broker in KAFKA_BOOTSTRAP_SERVERS, and in its advertised.listeners, as its "
        "certificate does"
    ),
    EXPIRED: "give the broker a new certificate",
    "TLS fails": "set KAFKA_SSL_CA_LOCATION to the certificates of who signed the broker's",
    "the topic does not exist": (
        "kafka-topics.sh --create --topic {topic} --partitions {partitions}"
    ),
    NOT_SEEN: (
        "kafka-topics.sh --create --topic {topic} --partitions {partitions}  # and: kafka-acls.sh "
        "--add --allow-principal User:NAME --operation Write --operation Describe --topic {topic}"
    ),
    "the topic may not be written": (
        "kafka-acls.sh --add --allow-principal User:NAME --operation Write --operation Describe "
        "--topic {topic}"
    ),
    MAY_NOT_READ: (
        "kafka-acls.sh --add --allow-principal User:NAME --operation Read --topic {topic}"
    ),
    "the cluster does not allow it": (
        "kafka-acls.sh --add --allow-principal User:NAME --operation IdempotentWrite --cluster"
    ),
    TOO_LARGE: ("kafka-configs.sh --alter --topic {topic} --add-config max.message.bytes=BYTES"),
    NO_LEADER: "start the brokers that are missing",
    "the topic has too few replicas in sync": "start the brokers that are missing",
    COLLIDES: (
        "set database in [events] of triggerkit.toml to another label, or leave one of the tables "
        "out"
    ),
    NOT_VALID: (
        "take from the topic what it demands; if that is the time of messages: kafka-configs.sh "
        "--alter --topic {topic} --add-config message.timestamp.type=LogAppendTime"
    ),
    KEYLESS: "kafka-configs.sh --alter --topic {topic} --add-config cleanup.policy=delete",
}

_TOPIC: Final = re.compile(r"\(topic ([A-Za-z0-9._-]+)(?: of (\d+) partitions?)?")


class KafkaFault(TriggerkitError):
    """Kafka does not take the events now, or does not give them; what it says why."""


def more_telling(before: Any, error: Any) -> Any:
    """Return which of two errors of the client, one after the other, says more of the cause."""
    return error if before is None or error.name() not in _FOLLOWING else before


def fault_of(error: Any, topic: str | None = None, partitions: int | None = None) -> KafkaFault:
    """Return what the client's `error` says, of `topic` where it is one's."""
    code = str(error.name())
    cause = _CAUSES.get(code, code)
    if code in ("_TRANSPORT", "_SSL") and _LISTENER in error.str():
        cause = OTHER_PROTOCOL
    return KafkaFault(said(cause, _detail(error.str()), topic, partitions))


def said(
    cause: str, detail: str = "", topic: str | None = None, partitions: int | None = None
) -> str:
    """Return a fault in a line, from which `remedy_of` knows what mends it."""
    where = "" if topic is None else f" (topic {topic}{_of(partitions)})"
    return f"Kafka: {cause}{where}{f': {detail}' if detail else ''}"


def remedy_of(fault: str) -> str | None:
    """Return what mends a fault as `said` wrote it; None of another one."""
    cause = fault.removeprefix("Kafka: ")
    if cause == fault:
        return None
    for begin, remedy in _REMEDIES.items():
        if cause.startswith(begin):
            found = _TOPIC.search(cause)
            topic, partitions = (found[1], found[2]) if found else ("TOPIC", None)
            return remedy.format(topic=topic, partitions=partitions or 8)
    return "mend what it names: it goes on by itself as soon as it can"


def _of(partitions: int | None) -> str:
    return "" if partitions is None else f" of {partitions} partitions"


def _detail(text: str) -> str:
    line = _NOISE.sub("", text).strip().rstrip(":").partition("\n")[0]
    return " ".join(line.split())[:_LONGEST]

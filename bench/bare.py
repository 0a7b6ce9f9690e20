"""The limit of one Python process: receive changes, decode them, make JSON, and do nothing else.

`python -m bench.bare DSN SLOT PUBLICATION COUNT` uses the product's own codec and prints the
seconds from the first to the last of COUNT changes. It receives by itself: what slows down
the product's receiving must not slow down its limit.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator

import orjson
import psycopg
from psycopg import sql

from triggerkit.replication.catalog import Catalog
from triggerkit.replication.codec.frames import payload_of
from triggerkit.replication.codec.messages import Relation
from triggerkit.replication.codec.pgoutput import decode
from triggerkit.replication.codec.relations import RelationCache

_START = """
START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names {})
"""


def receive(dsn: str, slot: str, publication: str, count: int) -> float:
    """Read `count` changes from the slot; the seconds it took."""
    relations = RelationCache()
    catalog = Catalog(dsn)
    seen, started = 0, 0.0
    with asyncio.Runner() as runner:
        for frame in _frames(dsn, slot, publication):
            payload = payload_of(frame)
            if payload is None:
                continue
            if payload[:1] in b"IUD":
                started = started or time.perf_counter()
                for change in relations.row_changes(payload):
                    orjson.dumps(change.record)
                    seen += 1
                if seen >= count:
                    break
            elif payload[:1] == b"R":
                relation = decode(payload)
                assert isinstance(relation, Relation)
                relations.put(runner.run(catalog.compile(relation)))
        seconds = time.perf_counter() - started
        runner.run(catalog.close())
    return seconds


def _frames(dsn: str, slot: str, publication: str) -> Iterator[memoryview]:
    connection = psycopg.connect(dsn, replication="database", autocommit=True)
    try:
        start = sql.SQL(_START).format(sql.Identifier(slot), sql.Literal(publication))
        connection.pgconn.exec_(start.as_bytes(connection))
        while True:
            _, frame = connection.pgconn.get_copy_data(0)
            yield frame
    finally:
        connection.close()


if __name__ == "__main__":
    dsn, slot, publication, count = sys.argv[1:]
    print(receive(dsn, slot, publication, int(count)))

"""The limit of one Python process: receive changes, decode them, make JSON, and do nothing else.

`python -m bench.bare DSN SLOT PUBLICATION COUNT` uses the product's own codec and prints the
seconds from the first frame to the last of COUNT changes.
"""

from __future__ import annotations

import sys
import time

import orjson
import uvloop

from triggerkit.replication.catalog import Catalog
from triggerkit.replication.connection import ReplicationConnection
from triggerkit.replication.frames import payload_of
from triggerkit.replication.messages import Relation
from triggerkit.replication.pgoutput import decode
from triggerkit.replication.relations import RelationCache


async def receive(dsn: str, slot: str, publication: str, count: int) -> float:
    """Read `count` changes from the slot; the seconds it took."""
    catalog = Catalog(dsn)
    relations = RelationCache()
    connection = await ReplicationConnection.open(dsn, slot, publication)
    seen, started = 0, 0.0
    while seen < count:
        frames = await connection.receive()
        started = started or time.perf_counter()
        for frame in frames:
            payload = payload_of(frame)
            if payload is None:
                continue
            if payload[:1] in b"IUD":
                for change in relations.row_changes(payload):
                    orjson.dumps(change.record)
                    seen += 1
            elif payload[:1] == b"R":
                relation = decode(payload)
                assert isinstance(relation, Relation)
                relations.put(await catalog.compile(relation))
    seconds = time.perf_counter() - started
    await connection.close()
    await catalog.close()
    return seconds


if __name__ == "__main__":
    dsn, slot, publication, count = sys.argv[1:]
    print(uvloop.run(receive(dsn, slot, publication, int(count))))

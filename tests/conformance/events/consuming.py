"""An instance of a group as a process that a test may kill: it prints what it was handed."""

from __future__ import annotations

import sys
from urllib.request import Request, urlopen

import orjson

from tests.conformance.events.world import POSTS, basic, ids


def consume(url: str, instance: str, session_ms: str) -> None:
    """Consume without an end, each answer's ids on a line of its own."""
    headers = {
        **basic(),
        "kafka-auto-offset-reset": "earliest",
        "kafka-auto-commit-interval": "0",
        "kafka-session-timeout-ms": session_ms,
    }
    path = f"{url}/consume/g/{instance}/{POSTS}?timeout=500"
    while True:
        with urlopen(Request(path, headers=headers), timeout=30) as answer:
            found = ids(orjson.loads(answer.read()))
        print(*found, flush=True)


if __name__ == "__main__":
    consume(*sys.argv[1:])

"""Callers of pulled consumers that acknowledge most, hand some back and forget others."""

from __future__ import annotations

import http.client
import json
import random
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tests.faults.rig.recorder import MoodyReceiver, read

_STACK_BYTES = 64 * 1024 * 1024


class Pullers:
    """Several callers of each consumer; what they received is kept in the receiver."""

    def __init__(
        self, port: int, secret: str, names: Sequence[str], receiver: MoodyReceiver, each: int = 2
    ) -> None:
        self._port = port
        self._secret = secret
        self._receiver = receiver
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._pull, args=[name]) for name in names for _ in range(each)
        ]
        #: Answers that nobody should get.
        self.problems: list[str] = []

    def __enter__(self) -> None:
        # A row nests deeper than the parser of a test is used to.
        sys.setrecursionlimit(20_000)
        before = threading.stack_size(_STACK_BYTES)
        for thread in self._threads:
            thread.start()
        threading.stack_size(before)

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _pull(self, name: str) -> None:
        while not self._stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            try:
                while not self._stop.is_set():
                    self._receive(connection, name)
            except Exception as error:  # told at the end; the caller begins anew
                self.problems.append(f"{name}: {error!r}")
                self._stop.wait(1)
            finally:
                connection.close()

    def _receive(self, connection: http.client.HTTPConnection, name: str) -> None:
        wanted = {"batch_size": random.choice([1, 10, 100]), "wait_for": "500ms"}
        found = self._call(connection, name, "receive", wanted)
        if found is None:
            self._stop.wait(0.2)
            return
        items = found["data"]
        # A caller that forgets what it received has not taken it.
        forgotten = random.random() < 0.01
        handed_back = [] if random.random() > 0.03 else items[len(items) // 2 :]
        kept = items[: len(items) - len(handed_back)]
        if not items or forgotten:
            return
        for item in kept:
            self._receiver.taken[name].append(read(item.get("message", item)))
        for what, some in (("ack", kept), ("nack", handed_back)):
            if some:
                ack_ids = {"ack_ids": [item["ack_id"] for item in some]}
                self._call(connection, name, what, ack_ids)

    def _call(
        self, connection: http.client.HTTPConnection, name: str, what: str, body: dict[str, Any]
    ) -> dict[str, Any] | None:
        headers = {"authorization": f"Bearer {self._secret}", "content-type": "application/json"}
        path = f"/api/v1/consumers/{name}/{what}"
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status == 200:
            # Numbers stay texts: there are some that no float or int holds.
            found: dict[str, Any] = json.loads(content, parse_int=str, parse_float=str)
            return found
        if answer.status != 409:  # paused
            self.problems.append(f"{name}/{what}: {answer.status} {content[:300]!r}")
        with suppress(IndexError):
            del self.problems[100]
        return None

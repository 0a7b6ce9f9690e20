"""A receiver in the test's own process that misbehaves by path, and takes any JSON there is."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import threading
from collections import defaultdict
from typing import Any, NamedTuple, Self

#: How a path misbehaves: the share of requests that it fails, and by what.
MOODS: dict[str, tuple[float, str]] = {
    "good": (0.0, ""),
    "down": (1.0, "500"),
    "flaky": (0.03, "500"),
    "busy": (0.03, "429"),
    "refusing": (0.02, "422"),
    "rude": (0.03, "reset"),
    "slow": (1.0, "wait"),
    "garbled": (0.03, "garbage"),
    "picky": (0.05, "failed"),
}


class Taken(NamedTuple):
    """A message that was taken, in the order of its taking."""

    id: str
    name: str
    key: str
    action: str
    version: int | None
    place: tuple[int, int]


class MoodyReceiver:
    """Answers at `/MOOD/…` by that mood, and keeps what it took by path."""

    def __init__(self) -> None:
        self.taken: dict[str, list[Taken]] = defaultdict(list)
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        # A row nests deeper than the parser of a test is used to.
        sys.setrecursionlimit(20_000)
        threading.stack_size(0)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._connected, "127.0.0.1", 0, limit=2**24)
        )
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._started.set()
        self._loop.run_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ", 2)[1].decode()
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                if not await self._answer(path, body, writer):
                    break
        except (asyncio.IncompleteReadError, OSError):
            pass
        writer.close()

    async def _answer(self, path: str, body: bytes, writer: asyncio.StreamWriter) -> bool:
        share, how = MOODS[path.split("/")[1]]
        fails = random.random() < share
        if fails and how == "reset":
            writer.transport.abort()
            return False
        if fails and how == "wait":
            await asyncio.sleep(0.02)
        if fails and how in ("500", "429", "422"):
            _write(writer, int(how), b"{}")
            return True
        # Numbers stay texts: there are some that no float or int holds.
        parsed = json.loads(body, parse_int=str, parse_float=str)
        messages = parsed.get("data", [parsed])
        failed = messages[:1] if fails and how == "failed" else []
        for message in messages[len(failed) :]:
            self.taken[path].append(read(message))
        if fails and how == "garbage":
            _write(writer, 200, b"<html>" * 100)
            return True
        items = [{"idempotency_key": m["metadata"]["idempotency_key"]} for m in failed]
        _write(writer, 200, json.dumps({"failed": items} if items else {}).encode())
        await writer.drain()
        return True


def read(message: dict[str, Any]) -> Taken:
    """A message as it is kept."""
    metadata, record = message["metadata"], message["record"] or {}
    version = record.get("version")
    return Taken(
        metadata["idempotency_key"],
        metadata["table_name"],
        "/".join(map(str, metadata["record_pks"])),
        message["action"],
        None if version is None else int(version),
        (int(metadata["commit_lsn"] or 0), int(metadata["commit_idx"] or 0)),
    )


def _write(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    writer.write(
        f"HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n".encode()
        + body
    )

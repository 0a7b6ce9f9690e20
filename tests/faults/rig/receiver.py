"""A receiver in a process of its own: what it is sent is on disk before it answers.

Run as `python -m tests.faults.rig.receiver FILE HOST`: prints its port there, then serves until
killed. How it answers is set by `PUT /control` with a `Behaviour` as JSON; paths in `forward` are
relayed there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

import orjson

from tests.acceptance.project import ROOT
from tests.faults.rig.history import Delivery
from tests.faults.rig.truth import hash_of

Mode = Literal["accept", "status", "reset", "hang", "drip", "lose"]

#: Seconds between two bytes of an answer that drips.
DRIP_S = 0.2


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How requests are answered: the next `times` of them by `mode`, all others accepted.

    A batch with a key in `poison` is refused by 422, whatever else is set, or answered by the mode
    `poison_as`; items with a key in `failing` are named in the answer. A share of the requests,
    `failing_share`, is answered by `status` by chance. `forward` maps paths to addresses
    (host:port) to relay to.
    """

    mode: Mode = "accept"
    times: int = 1_000_000
    status: int = 500
    retry_after: str | None = None
    poison: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()
    forward: Mapping[str, str] = field(default_factory=dict)
    poison_as: Mode | None = None
    failing_share: float = 0.0


class Incoming(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


#: How often one push fails by chance at most: the sender waits longer after each time.
MOST_FAILURES = 5


class Recorder:
    """The process's side: appends what comes to a file, and answers as it is told."""

    def __init__(self, file: Path) -> None:
        self._fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._behaviour = Behaviour()
        self._left = 0
        #: How often a push was answered by chance.
        self._failed: Counter[str] = Counter()

    async def serve(self, host: str) -> None:
        """Serve on a free port, printed first, forever."""
        server = await asyncio.start_server(self._connected, host, 0, limit=2**24)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while (request := await _read(reader)) is not None:
                if request.path == "/control":
                    self._behaviour = Behaviour(**orjson.loads(request.body))
                    self._left = self._behaviour.times
                    _answer(writer, 200, b"{}")
                elif not await self._received(request, reader, writer):
                    break
        writer.close()

    async def _received(
        self, request: Incoming, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer a push; False when the connection is over."""
        started_at = time.monotonic()
        behaviour, messages = self._behaviour, _messages(request.body)
        is_poisoned = not set(behaviour.poison).isdisjoint(map(_key, messages))
        mode = self._mode(request, is_poisoned)
        if is_poisoned and behaviour.poison_as is None:
            self._write(request, messages, started_at, 422)
            _answer(writer, 422, b'{"error": "poison"}')
        elif mode == "status":
            extra = {} if behaviour.retry_after is None else {"retry-after": behaviour.retry_after}
            self._write(request, messages, started_at, behaviour.status)
            _answer(writer, behaviour.status, b"{}", extra)
        elif mode == "accept":
            status, body = await self._accept(request, messages, behaviour)
            self._write(request, messages, started_at, status)
            _answer(writer, status, body)
        else:
            await self._break(mode, request, messages, started_at, reader, writer)
            return False
        await writer.drain()
        return True

    def _mode(self, request: Incoming, is_poisoned: bool) -> Mode:
        behaviour = self._behaviour
        self._left -= 1
        if is_poisoned and behaviour.poison_as is not None:
            return behaviour.poison_as
        push = request.headers.get("webhook-id", "")
        if self._failed[push] < MOST_FAILURES and random.random() < behaviour.failing_share:
            self._failed[push] += 1
            return "status"
        return behaviour.mode if self._left >= 0 else "accept"

    async def _accept(
        self, request: Incoming, messages: list[Any], behaviour: Behaviour
    ) -> tuple[int, bytes]:
        target = behaviour.forward.get(request.path)
        if target is not None:
            return await _relay(request, target)
        failed = [
            {"idempotency_key": m["metadata"]["idempotency_key"], "error": "not this one"}
            for m in messages
            if _key(m) in behaviour.failing
        ]
        return 200, orjson.dumps({"failed": failed} if failed else {})

    async def _break(
        self,
        mode: Mode,
        request: Incoming,
        messages: list[Any],
        started_at: float,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """The answers that are none."""
        if mode == "lose":
            self._write(request, messages, started_at, 200, answered=False)
            return
        if mode == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        elif mode == "hang":
            # Who gives a push up resets its connection.
            with contextlib.suppress(ConnectionError):
                await reader.read()
        elif mode == "drip":
            gone = asyncio.ensure_future(reader.read())
            for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b" " * 1000:
                writer.write(bytes([byte]))
                await asyncio.wait({gone}, timeout=DRIP_S)
                if gone.done():
                    break
        self._write(request, messages, started_at, None)

    def _write(
        self,
        request: Incoming,
        messages: list[Any],
        started_at: float,
        status: int | None,
        *,
        answered: bool = True,
    ) -> None:
        batch_hash = hashlib.sha256(request.body).hexdigest()
        head = {
            "batch_id": request.headers["webhook-id"],
            "batch_hash": batch_hash,
            "attempt": int(request.headers["triggerkit-attempt"]),
            "started_at": started_at,
            "ended_at": time.monotonic(),
            "status": status,
            "answered": answered,
        }
        items = [item_of(message) for message in messages]
        line = orjson.dumps({"path": request.path, **head, "items": items})
        os.write(self._fd, line + b"\n")
        os.fsync(self._fd)


def item_of(message: Any) -> dict[str, Any]:
    """What a message tells, as `Delivery` has it."""
    metadata = message["metadata"]
    return {
        "id": metadata["idempotency_key"],
        "key": _key(message),
        "lsn": metadata["commit_lsn"],
        "idx": metadata["commit_idx"],
        "version": message["record"]["version"],
        "action": message["action"],
        "hash": hash_of(message["record"]),
        "xid": metadata["xid"],
    }


def _messages(body: bytes) -> list[Any]:
    parsed = orjson.loads(body)
    messages: list[Any] = parsed.get("data", [parsed])
    return messages


def _key(message: Any) -> str:
    return str(message["metadata"]["record_pks"][0])


async def _read(reader: asyncio.StreamReader) -> Incoming | None:
    first = await reader.readline()
    if not first:
        return None
    method, path, _ = first.decode().split()
    headers = {}
    while line := (await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Incoming(method, path, headers, body)


def _answer(
    writer: asyncio.StreamWriter, status: int, body: bytes, extra: Mapping[str, str] | None = None
) -> None:
    headers = {"content-type": "application/json", "content-length": len(body), **(extra or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode() + body)


async def _relay(request: Incoming, target: str) -> tuple[int, bytes]:
    """Pass a request on; 502 when there is nobody, or whoever it was ended in the midst of it."""
    host, _, port = target.partition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            headers = {**request.headers, "connection": "close"}
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            head = f"{request.method} {request.path} HTTP/1.1\r\n{lines}\r\n"
            writer.write(head.encode() + request.body)
            head_back, found, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
    except OSError:
        return 502, b"{}"
    return (int(head_back.split()[1]), body) if found else (502, b"{}")


class ReceiverProcess:
    """The test's side of a receiver."""

    def __init__(self, file: Path, host: str = "127.0.0.1") -> None:
        self._file = file
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.rig.receiver", str(file), host],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.url = f"http://{host}:{int(self._process.stdout.readline())}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def behave(self, behaviour: Behaviour) -> None:
        """Answer so from now on."""
        body = orjson.dumps(asdict(behaviour))
        with urlopen(HttpRequest(f"{self.url}/control", body, method="PUT"), timeout=10):
            pass

    def deliveries(self, path: str) -> list[Delivery]:
        """What came to `path` until now, in the order in which it was answered."""
        if not self._file.exists():
            return []
        found = []
        for line in self._file.read_bytes().splitlines():
            request = orjson.loads(line)
            if request.pop("path") == path:
                items = request.pop("items")
                found += [Delivery(**item, **request) for item in items]
        return found


if __name__ == "__main__":
    asyncio.run(Recorder(Path(sys.argv[1])).serve(sys.argv[2]))

"""One WebSocket of the command `tunnel`: pushes go out, several at a time, answers come back."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass

from starlette.websockets import WebSocket, WebSocketDisconnect

from triggerkit.consumers.tunnels.pushes import TunnelAnswer, only
from triggerkit.delivery.http.connection import MAX_ANSWER_BYTES
from triggerkit.tunnel.wire import (
    ENDED,
    HEADERS,
    WINDOW_BYTES,
    Again,
    Bodies,
    Hello,
    Malformed,
    Opened,
    Push,
    Ready,
    Refused,
    Reply,
    Taken,
    Unanswered,
    pieces_of,
    read_from_client,
    read_piece,
    written,
)

#: Seconds in which the other side takes something of what is on its way to it.
STALL_S = 60.0

#: Seconds that an answer has for its way, beside the deadline of its push, and each of its pieces:
#: what is still on its way to the command then takes as long at most as what is answered.
ANSWER_S = 60.0

#: Most characters of an error that a command tells of, or of a header.
MAX_ERROR_CHARS = 500


#: The status that stands for a port where nothing listens.
NOTHING_THERE = 502

#: Statuses of final answers, from and to: also those that no standard knows.
_STATUSES = (200, 1000)

#: What no text column stores, and what would draw lines of its own in a log.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class LineLost(Exception):
    """The WebSocket has ended."""


@dataclass(slots=True)
class _Waiting:
    """A push that waits for its answer, and until when it does."""

    answer: asyncio.Future[TunnelAnswer]
    deadline: asyncio.Timeout | None = None

    def goes_on(self) -> None:
        """Note that something of the answer came."""
        if self.deadline is not None:
            self.deadline.reschedule(asyncio.get_running_loop().time() + ANSWER_S)


class Line:
    """The line to one command. `read` runs until it ends; `push` sends meanwhile."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._number = 0
        self._waiting: dict[int, _Waiting] = {}
        self._bodies = Bodies(MAX_ANSWER_BYTES)
        self._room = WINDOW_BYTES
        self._taken = asyncio.Event()
        #: What the command asked to be sent again.
        self.asked_again: asyncio.Queue[str] = asyncio.Queue(maxsize=8)
        self.is_over = False

    async def hello(self) -> Hello:
        """Return the command's first word.

        Raises:
            Malformed: it is none.
            LineLost
        """
        said = await self._said()
        if not isinstance(said, str) or not isinstance(hello := read_from_client(said), Hello):
            raise Malformed("the first message is no hello")
        return hello

    async def welcome(self, user: str, opened: list[Opened]) -> None:
        """Say that the tunnels are open."""
        await self._send(written(Ready(user, opened)))

    async def refuse(self, error: str) -> None:
        """Say why there is no tunnel, or no more, and end the line for good."""
        with suppress(LineLost):
            await self._send(written(Refused(error)))
        await self.close(ENDED)

    async def close(self, code: int) -> None:
        """End the line; with another code than `ENDED` the command tries again."""
        self.is_over = True
        with suppress(RuntimeError, WebSocketDisconnect):
            await self._socket.close(code)

    async def read(self) -> None:
        """Take in what the command says, until it has no more to say.

        Raises:
            Malformed: it says what nobody can read.
        """
        try:
            while True:
                said = await self._said()
                if isinstance(said, bytes):
                    self._add(said)
                else:
                    self._take(said)
        except LineLost:
            return
        finally:
            self.is_over = True
            self._taken.set()
            for waiting in self._waiting.values():
                if not waiting.answer.done():
                    waiting.answer.set_exception(LineLost())

    async def push(
        self,
        endpoint: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        timeout_s: float,
        *,
        again: bool = False,
    ) -> TunnelAnswer:
        """Send a push and return what came back.

        Raises:
            LineLost: nobody knows what became of it.
        """
        if self.is_over:
            raise LineLost
        self._number += 1
        number = self._number
        waiting = self._waiting[number] = _Waiting(asyncio.get_running_loop().create_future())
        try:
            push = Push(number, endpoint, path, headers, len(body), timeout_s, again)
            await self._send(written(push))
            for piece in pieces_of(number, body):
                await self._make_room(len(piece))
                await self._send(piece)
            async with asyncio.timeout(timeout_s + ANSWER_S) as waiting.deadline:
                return await waiting.answer
        except TimeoutError:
            # The command says by itself that its app gave no answer: this is the line's fault.
            return TunnelAnswer(None, {}, b"", error="the tunnel said nothing of it")
        finally:
            del self._waiting[number]
            self._bodies.forget(number)

    async def _make_room(self, size: int) -> None:
        while self._room < size:
            self._taken.clear()
            try:
                async with asyncio.timeout(STALL_S):
                    await self._taken.wait()
            except TimeoutError:
                await self.close(1011)
                raise LineLost from None
            if self.is_over:
                raise LineLost
        self._room -= size

    async def _send(self, frame: str | bytes) -> None:
        try:
            if isinstance(frame, str):
                await self._socket.send_text(frame)
            else:
                await self._socket.send_bytes(frame)
        except (WebSocketDisconnect, RuntimeError):
            raise LineLost from None

    async def _said(self) -> str | bytes:
        try:
            message = await self._socket.receive()
        except RuntimeError:
            raise LineLost from None
        if message["type"] != "websocket.receive":
            raise LineLost
        text: str | None = message.get("text")
        return message["bytes"] if text is None else text

    def _take(self, text: str) -> None:
        match read_from_client(text):
            case Taken(size=size):
                self._room = min(WINDOW_BYTES, self._room + max(0, size))
                self._taken.set()
            case Reply() as reply:
                if not _STATUSES[0] <= reply.status < _STATUSES[1]:
                    raise Malformed("an answer that is none of HTTP")
                waiting = self._waits_for(reply.number)
                if waiting is not None and self._bodies.begin(reply) is not None:
                    self._answer(reply, b"")
            case Unanswered() as said:
                status = said.status if said.status == NOTHING_THERE else None
                answer = TunnelAnswer(
                    status, {}, b"", error=_plain(said.error), is_suspect=said.is_suspect
                )
                self._resolve(said.number, answer)
            case Again(batch_id=batch_id):
                with suppress(asyncio.QueueFull):
                    self.asked_again.put_nowait(batch_id)
            case Hello():
                raise Malformed("a second hello")

    def _waits_for(self, number: int) -> _Waiting | None:
        """Return the push that the command says something of; None of one that was given up since.

        Raises:
            Malformed: there was no such push.
        """
        if not 0 < number <= self._number:
            raise Malformed("an answer to nothing")
        waiting = self._waiting.get(number)
        if waiting is not None:
            waiting.goes_on()
        return waiting

    def _add(self, frame: bytes) -> None:
        number, _ = read_piece(frame)
        if self._waits_for(number) is None:
            return
        found = self._bodies.add(frame)
        if found is not None and isinstance(reply := found[0], Reply):
            self._answer(reply, found[1])

    def _answer(self, reply: Reply, body: bytes) -> None:
        given = {name.lower(): _plain(value) for name, value in reply.headers.items()}
        headers = only(given, HEADERS)
        self._resolve(reply.number, TunnelAnswer(reply.status, headers, body, reply.is_cut))

    def _resolve(self, number: int, answer: TunnelAnswer) -> None:
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting.answer.done():
            waiting.answer.set_result(answer)


def _plain(text: str) -> str:
    return _UNPRINTABLE.sub(" ", text)[:MAX_ERROR_CHARS]

"""What a server and the command `tunnel` say to each other over a WebSocket.

A text frame is a message, as JSON. A binary frame is a piece of the body that the message of its
number announced: the number, of 8 bytes, and then the piece. Bodies are sent in pieces so that a
large one holds up neither the others nor the pings, and of a push no more is on its way than the
other side said to have taken, so that it does not wait in the buffers of a slow line.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

#: The version of what is said here.
VERSION = 1

#: Where a server takes tunnels, below its address.
PATH = "/api/v1/tunnel"

#: Bytes of a piece, and how many bytes may be on their way: at 13 kB/s a ping is answered in time.
PIECE_BYTES = 32 * 1024
WINDOW_BYTES = 8 * PIECE_BYTES

#: Headers of an answer that somebody reads.
HEADERS = ("content-type", "content-encoding", "retry-after", "date")

#: Largest message, and largest body of a push or an answer.
MAX_MESSAGE_BYTES = 1024 * 1024
MAX_BODY_BYTES = 256 * 1024 * 1024

#: Bodies that may be under way at a time.
MOST_BODIES = 1000

#: Seconds between two pings, and in which one is answered.
PING_S = 15.0
PONG_S = 20.0

#: The code of a close after which the command does not try again: what is said before says why.
ENDED = 4000

_NUMBER_BYTES = 8


class Malformed(ValueError):
    """The other side said what nobody can read."""


class _Message(msgspec.Struct, frozen=True, tag_field="type", tag=str.lower):
    """Something that is said; its name is its type."""


class Hello(_Message, frozen=True):
    """The command's first word. `ports` are those of each endpoint, by its name; `instance` is the
    command, whichever connection it speaks over."""

    version: int
    instance: str
    ports: dict[str, int]
    share: bool = False


class Opened(msgspec.Struct, frozen=True):
    """A tunnel that was opened, and how many messages waited for it."""

    endpoint: str
    path: str
    waiting: int


class Ready(_Message, frozen=True):
    """The tunnels are open."""

    user: str
    tunnels: list[Opened]


class Refused(_Message, frozen=True):
    """The tunnels are not open, or not any more; nothing follows."""

    error: str


class Push(_Message, frozen=True):
    """A push, whose body of `size` bytes follows in pieces. With `again` it was asked for."""

    number: int
    endpoint: str
    path: str
    headers: dict[str, str]
    size: int
    timeout_s: float
    again: bool = False


class Taken(_Message, frozen=True):
    """So many more bytes of pushes were read."""

    size: int


class Reply(_Message, frozen=True):
    """What a push was answered; a body of `size` bytes follows in pieces."""

    number: int
    status: int
    headers: dict[str, str]
    size: int
    is_cut: bool = False


class Unanswered(_Message, frozen=True):
    """A push that was not answered. `status` is what is said in its place; `is_suspect`: it may
    have been taken, and have brought that about."""

    number: int
    error: str
    status: int | None = None
    is_suspect: bool = False


class Again(_Message, frozen=True):
    """Send once more what was sent last by this id."""

    batch_id: str


FromServer = Ready | Refused | Push
FromClient = Hello | Taken | Reply | Unanswered | Again


_from_server: msgspec.json.Decoder[FromServer] = msgspec.json.Decoder(FromServer)
_from_client: msgspec.json.Decoder[FromClient] = msgspec.json.Decoder(FromClient)


def read_from_server(text: str | bytes) -> FromServer:
    """Read a message of a server.

    Raises:
        Malformed
    """
    try:
        return _from_server.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(str(error)) from None


def read_from_client(text: str | bytes) -> FromClient:
    """Read a message of the command.

    Raises:
        Malformed
    """
    try:
        return _from_client.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(str(error)) from None


def written(message: _Message) -> str:
    """Return a message as it is sent."""
    return msgspec.json.encode(message).decode()


def pieces_of(number: int, body: bytes) -> Iterator[bytes]:
    """Yield the frames of a body."""
    head = number.to_bytes(_NUMBER_BYTES)
    for start in range(0, len(body), PIECE_BYTES):
        yield head + body[start : start + PIECE_BYTES]


def read_piece(frame: bytes) -> tuple[int, bytes]:
    """Return the number and the bytes of a piece.

    Raises:
        Malformed
    """
    if len(frame) <= _NUMBER_BYTES:
        raise Malformed("a piece without bytes")
    return int.from_bytes(frame[:_NUMBER_BYTES]), frame[_NUMBER_BYTES:]


class Bodies:
    """Puts bodies together, each announced by a message, of no more than `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parts: dict[int, tuple[_Message, int, bytearray]] = {}

    def begin(self, message: Push | Reply) -> bytes | None:
        """Note the message of a body; returns the body where it is empty.

        Raises:
            Malformed: it is larger than allowed, its number is under way, or too many are.
        """
        if not 0 <= message.size <= self._max_bytes:
            raise Malformed(f"a body of {message.size} bytes")
        if message.number in self._parts or len(self._parts) >= MOST_BODIES:
            raise Malformed("a number that is under way")
        if message.size == 0:
            return b""
        self._parts[message.number] = (message, message.size, bytearray())
        return None

    def forget(self, number: int) -> None:
        """Let go of what came of a body that nobody waits for any more."""
        self._parts.pop(number, None)

    def add(self, frame: bytes) -> tuple[_Message, bytes] | None:
        """Take a piece; returns the message with its body once that is whole.

        Raises:
            Malformed: nobody announced it.
        """
        number, piece = read_piece(frame)
        if number not in self._parts:
            raise Malformed("a piece that nobody announced")
        message, size, body = self._parts[number]
        body += piece
        if len(body) > size:
            raise Malformed("a body that is larger than it was said to be")
        if len(body) < size:
            return None
        del self._parts[number]
        return message, bytes(body)

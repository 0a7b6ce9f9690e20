"""Users of the events: who may read them over REST, by a name and a password.

A password is kept as its scrypt hash alone. What was found right is remembered for a short time, so
that not every request takes the time of one; a user who is removed is refused at once all the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import datetime

import psycopg

from triggerkit.errors import ConfigurationError, NameTaken, UnknownEventUser
from triggerkit.state.audit import note

#: The cost of a hash: 16 MiB and some 50 ms.
_N, _R, _P = 2**14, 8, 1

SALT_BYTES = 16

#: Bytes of a generated password.
PASSWORD_BYTES = 24

#: Characters of a password at least and at most.
MIN_PASSWORD_CHARS, MAX_PASSWORD_CHARS = 12, 1024

#: Seconds for which a password that was right is known to be, since it was given last.
KNOWN_S = 60.0

#: Passwords that are known at most; the oldest is forgotten then.
MOST_KNOWN = 1000

#: Hashes that are made at a time: each takes its memory and a core.
HASHES_AT_ONCE = 2

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_ADD = """
INSERT INTO triggerkit.event_users (name, password) VALUES (%s, %s)
ON CONFLICT DO NOTHING RETURNING created_at
"""

_LIST = "SELECT name, created_at FROM triggerkit.event_users ORDER BY name"

_REMOVE = "DELETE FROM triggerkit.event_users WHERE name = %s RETURNING in_kafka"

_IN_KAFKA = "UPDATE triggerkit.event_users SET in_kafka = true WHERE name = %s"

_STORED = "SELECT password FROM triggerkit.event_users WHERE name = %s"


@dataclass(frozen=True, slots=True)
class EventUser:
    """A user, by name."""

    name: str
    created_at: datetime


def new_password() -> str:
    """Return a password that nobody guesses."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


async def add_user(
    connection: psycopg.AsyncConnection, name: str, password: str, actor: str
) -> EventUser:
    """Make a user.

    Raises:
        ConfigurationError: the name or the password is none that a user can have.
        NameTaken: there is a user of this name.
    """
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(
            "a user's name has 1 to 64 letters, digits, dots, hyphens and underscores, and begins "
            "with a letter or a digit"
        )
    if not MIN_PASSWORD_CHARS <= len(password) <= MAX_PASSWORD_CHARS or not password.isprintable():
        raise ConfigurationError(
            f"a password has {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} printable characters"
        )
    hashed = await asyncio.to_thread(_hashed, password)
    async with connection.transaction():
        cursor = await connection.execute(_ADD, [name, hashed])
        row = await cursor.fetchone()
        if row is None:
            raise NameTaken(
                f"there is a user {name} already; remove it first, or take another name"
            )
        await note(connection, actor, "add user of events", name)
    return EventUser(name, row[0])


async def list_users(connection: psycopg.AsyncConnection) -> list[EventUser]:
    """Return all users, by name."""
    cursor = await connection.execute(_LIST)
    return [EventUser(*row) for row in await cursor.fetchall()]


async def note_in_kafka(connection: psycopg.AsyncConnection, name: str) -> bool:
    """Note that the user of this name in Kafka is made with this one; return whether it is there
    still."""
    cursor = await connection.execute(_IN_KAFKA, [name])
    return cursor.rowcount == 1


async def remove_user(connection: psycopg.AsyncConnection, name: str, actor: str) -> bool:
    """Remove a user: from now on its requests are refused. Returns whether it was made in Kafka.

    Raises:
        UnknownEventUser: there is none.
    """
    async with connection.transaction():
        cursor = await connection.execute(_REMOVE, [name])
        row = await cursor.fetchone()
        if row is None:
            raise UnknownEventUser(name, [user.name for user in await list_users(connection)])
        await note(connection, actor, "remove user of events", name)
    return bool(row[0])


class Passwords:
    """Tells right passwords from wrong ones, in constant time also for users there are none of."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        #: Until when a password is known to be right, by a digest of it and of its hash.
        self._known: dict[bytes, float] = {}
        self._turns = asyncio.Semaphore(HASHES_AT_ONCE)
        self._nobody = _text(secrets.token_bytes(SALT_BYTES), secrets.token_bytes(64))

    async def stored(self, connection: psycopg.AsyncConnection, name: str) -> str | None:
        """Return the hash of a user's password; None of a user there is none of."""
        if _NAME.fullmatch(name) is None:
            return None
        cursor = await connection.execute(_STORED, [name])
        row = await cursor.fetchone()
        return None if row is None else str(row[0])

    def knows(self, stored: str | None, name: str, password: str) -> bool:
        """Return whether `password` was found right a short time ago."""
        if stored is None or len(password) > MAX_PASSWORD_CHARS:
            return False
        digest = self._digest(stored, name, password)
        if self._known.get(digest, 0) <= time.monotonic():
            return False
        # Who comes again and again is let in also while its address is held off.
        self._remember(digest)
        return True

    async def matches(self, stored: str | None, name: str, password: str) -> bool:
        """Return whether `stored` is the hash of `password`; it takes its time for None too."""
        if len(password) > MAX_PASSWORD_CHARS:
            return False
        if self.knows(stored, name, password):
            return True
        digest = self._digest(stored or "", name, password)
        async with self._turns:
            is_it = await asyncio.to_thread(_is_hash_of, stored or self._nobody, password)
        if stored is None or not is_it:
            return False
        self._remember(digest)
        return True

    def _remember(self, digest: bytes) -> None:
        self._known.pop(digest, None)
        self._known[digest] = time.monotonic() + KNOWN_S
        if len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def _digest(self, *parts: str) -> bytes:
        digest = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in parts:
            raw = part.encode(errors="surrogatepass")
            digest.update(len(raw).to_bytes(8) + raw)
        return digest.digest()


def _hashed(password: str) -> str:
    salt = secrets.token_bytes(SALT_BYTES)
    return _text(salt, _scrypt(password, salt, _N, _R, _P))


def _text(salt: bytes, digest: bytes) -> str:
    # With its cost, so that hashes of another cost can stand beside these.
    return f"scrypt${_N}${_R}${_P}${b64encode(salt).decode()}${b64encode(digest).decode()}"


def _is_hash_of(stored: str, password: str) -> bool:
    _, n, r, p, salt, digest = stored.split("$")
    made = _scrypt(password, b64decode(salt), int(n), int(r), int(p))
    return hmac.compare_digest(made, b64decode(digest))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    raw = password.encode(errors="surrogatepass")
    return hashlib.scrypt(raw, salt=salt, n=n, r=r, p=p, maxmem=64 * 2**20)

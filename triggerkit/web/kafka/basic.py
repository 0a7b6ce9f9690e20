"""Authorize requests by HTTP Basic, as one of the users of the events."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error

from psycopg import AsyncConnection
from starlette.requests import Request

from triggerkit.events.users import Passwords
from triggerkit.state.connect import Pool
from triggerkit.web.throttle import Throttle


class Refused(Exception):
    """The answer to a request: its status, and what is wrong."""

    def __init__(self, status: int, error: str, **headers: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.headers = headers


class Caller:
    """A user, as a request gave its name and password."""

    def __init__(self, passwords: Passwords, name: str, password: str) -> None:
        self._passwords = passwords
        self._password = password
        self.name = name

    async def require(self, connection: AsyncConnection) -> None:
        """See that there still is this user.

        Raises:
            Refused: it was removed, or has another password.
        """
        stored = await self._passwords.stored(connection, self.name)
        if not await self._passwords.matches(stored, self.name, self._password):
            raise unauthorized()


class Door:
    """Lets users in; an address that gave too many wrong passwords waits."""

    def __init__(self) -> None:
        self._passwords = Passwords()
        self._throttle = Throttle()

    async def enter(self, request: Request, given: tuple[str, str], pool: Pool) -> Caller:
        """Return who makes the request, by the name and the password that are `given`.

        Raises:
            Refused: they are wrong, or the request's address has to wait.
        """
        address = "" if request.client is None else request.client.host
        name, password = given
        async with pool.connection() as connection:
            stored = await self._passwords.stored(connection, name)
        wait_s = self._throttle.wait_s(address)
        # Others behind the same address go on.
        if wait_s > 0 and not self._passwords.knows(stored, name, password):
            headers = {"retry-after": str(wait_s)}
            raise Refused(429, f"too many wrong passwords; try again in {wait_s} s", **headers)
        if not await self._passwords.matches(stored, name, password):
            self._throttle.note_wrong(address)
            raise unauthorized()
        return Caller(self._passwords, name, password)


def read_basic(request: Request) -> tuple[str, str]:
    """Return the name and the password that a request carries.

    Raises:
        Refused: it carries none.
    """
    scheme, _, rest = request.headers.get("authorization", "").partition(" ")
    try:
        text = b64decode(rest.strip(), validate=True).decode()
    except (Error, ValueError):
        raise unauthorized() from None
    name, colon, password = text.partition(":")
    if scheme.lower() != "basic" or not colon:
        raise unauthorized()
    return name, password


def unauthorized() -> Refused:
    """Return the answer to a missing and to a wrong name or password."""
    return Refused(401, "Unauthorized", **{"www-authenticate": 'Basic realm="triggerkit events"'})

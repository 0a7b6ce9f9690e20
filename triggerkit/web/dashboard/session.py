"""Sessions of the dashboard: signed cookies, their CSRF tokens, and one-time login links.

A session is kept by the browser alone, signed with TRIGGERKIT_SECRET_KEY:
whoever changes that key ends all sessions.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from secrets import token_urlsafe

from pydantic import SecretStr

#: Seconds for which a session lasts, and for which a login link can be used.
SESSION_S = 12 * 3600
LINK_S = 3600

#: The cookie's name, and the path of the login page below the dashboard.
COOKIE = "triggerkit_session"
LOGIN = "/login"


@dataclass(frozen=True, slots=True)
class Session:
    """One login; `csrf` is what its forms carry."""

    id: str
    csrf: str


class Sessions:
    """Makes and reads what is signed by one secret key."""

    def __init__(self, secret: SecretStr) -> None:
        self._secret = secret.get_secret_value().encode()

    def is_key(self, given: str) -> bool:
        """Return whether it is the secret key; digests are compared, in constant time."""
        digests = [hashlib.sha256(text).digest() for text in (given.encode(), self._secret)]
        return hmac.compare_digest(*digests)

    def begin(self) -> str:
        """Return the cookie of a new session."""
        return self._signed("session", SESSION_S)

    def read(self, cookie: str) -> Session | None:
        """Return the session of a cookie; None where it is not ours, or has ended."""
        found = self._read("session", cookie)
        return None if found is None else Session(found, self._mac("csrf", found))

    def link(self) -> str:
        """Return the token of a new login link."""
        return self._signed("link", LINK_S)

    def read_link(self, token: str) -> str | None:
        """Return the id of a login link, which is to be used once; None where it is too late."""
        return self._read("link", token)

    def _signed(self, purpose: str, lasts_s: int) -> str:
        content = f"{int(time.time()) + lasts_s}.{token_urlsafe(18)}"
        return f"{content}.{self._mac(purpose, content)}"

    def _read(self, purpose: str, text: str) -> str | None:
        content, _, mac = text.rpartition(".")
        ends, _, nonce = content.partition(".")
        if not is_same(mac, self._mac(purpose, content)):
            return None
        return nonce if int(ends) > time.time() else None

    def _mac(self, purpose: str, content: str) -> str:
        message = f"triggerkit dashboard {purpose} {content}".encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()


def is_same(given: str, expected: str) -> bool:
    """Compare two texts in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())


def login_link(url: str, secret: SecretStr) -> str:
    """Return a link to the dashboard under `url` that logs in once."""
    return f"{url}/dashboard{LOGIN}?once={Sessions(secret).link()}"

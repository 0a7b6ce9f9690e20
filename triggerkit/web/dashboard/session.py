"""Sessions of the dashboard: signed cookies, their CSRF tokens, and one-time login links.

A session is kept by the browser alone, signed with TRIGGERKIT_SECRET_KEY:
whoever changes that key ends all sessions. One that began with TRIGGERKIT_READ_KEY may only look.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from secrets import token_urlsafe
from typing import Self

from markupsafe import Markup
from pydantic import SecretStr

from triggerkit.settings import Settings

#: Seconds for which a session lasts, and for which a login link can be used.
SESSION_S = 12 * 3600
LINK_S = 3600

#: What the cookie's name begins with, and the path of the login page below the dashboard.
COOKIE = "triggerkit_session"
LOGIN = "/login"

_PROOF = Markup(
    '<input type="hidden" name="csrf" value="{csrf}"><input type="hidden" name="once" '
    'value="{once}">'
)


@dataclass(frozen=True, slots=True)
class Session:
    """One login; `csrf` is what its forms carry, and `may_change` whether it may do more than
    look."""

    id: str
    csrf: str
    may_change: bool

    def proof(self) -> Markup:
        """Return the hidden fields of a form: whose it is, and which one, so that one that is sent
        twice is known."""
        return _PROOF.format(csrf=self.csrf, once=token_urlsafe(9))


class Sessions:
    """Makes and reads what is signed by one key; those of the other key may only look."""

    def __init__(self, secret: SecretStr | None, read_key: SecretStr | None = None) -> None:
        """At least one key is given. Where there is the read key alone, all only look: who has it
        could sign what it signs."""
        self._full = None if secret is None else secret.get_secret_value().encode()
        self._reading = None if read_key is None else read_key.get_secret_value().encode()
        self._secret = self._full or self._reading or b""
        assert self._secret

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Return those of the settings; None where no key is set."""
        keys = settings.triggerkit_secret_key, settings.triggerkit_read_key
        return None if keys == (None, None) else cls(*keys)

    @property
    def cookie(self) -> str:
        """The cookie's name. A browser gives a host's cookies to all of its ports: another project
        that is served there has another one."""
        return f"{COOKIE}_{self._mac('cookie', '')[:12]}"

    def enter(self, given: str) -> str | None:
        """Return the cookie of a new session, as the key that is given opens one; None where it is
        neither. Digests are compared, in constant time."""
        if _is_key(given, self._full):
            return self.begin()
        return self._signed(self._looking, SESSION_S) if _is_key(given, self._reading) else None

    def begin(self) -> str:
        """Return the cookie of a new session that may change things."""
        return self._signed("session", SESSION_S)

    def of_browser(self, cookies: Mapping[str, str]) -> Session | None:
        """Return the session of a browser, by all its cookies; None where it has none."""
        return self.read(cookies.get(self.cookie, ""))

    def read(self, cookie: str) -> Session | None:
        """Return the session of a cookie; None where it is not ours, or has ended."""
        for purpose, is_open in (
            ("session", self._full is not None),
            (self._looking, self._reading is not None),
        ):
            if is_open and (found := self._read(purpose, cookie)) is not None:
                return Session(found, self._mac("csrf", found), purpose == "session")
        return None

    @property
    def _looking(self) -> str:
        """What a session of the read key is signed for: it ends when that key is changed."""
        return f"look {hashlib.sha256(self._reading or b'').hexdigest()}"

    def link(self) -> str:
        """Return the token of a new login link."""
        return self._signed("link", LINK_S)

    def read_link(self, token: str) -> str | None:
        """Return the id of a login link, which is to be used once; None where it is too late."""
        return self._read("link", token) if self._full is not None else None

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


def _is_key(given: str, key: bytes | None) -> bool:
    digests = [hashlib.sha256(text).digest() for text in (given.encode(), key or b"")]
    return hmac.compare_digest(*digests) and key is not None


def is_same(given: str, expected: str) -> bool:
    """Compare two texts in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())


def login_link(url: str, secret: SecretStr) -> str:
    """Return a link to the dashboard under `url` that logs in once."""
    return f"{url}/dashboard{LOGIN}?once={Sessions(secret).link()}"

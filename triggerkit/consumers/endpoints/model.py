"""Endpoints as they are stored: where pushes go, with headers and signing secrets encrypted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from urllib.parse import urlsplit

import orjson

from triggerkit.encryption import Keyring
from triggerkit.errors import ConfigurationError, InvalidEndpoint
from triggerkit.signature import read_secret

#: Headers that say how a request is framed and where it goes: no endpoint sets them.
FRAMING = frozenset({"host", "content-length", "transfer-encoding", "connection"})

#: Most characters of all headers of an endpoint together.
MAX_HEADER_CHARS = 16 * 1024

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")

#: A token of RFC 9110.
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

#: Visible ASCII, with spaces between.
_HEADER_VALUE = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?")

#: A path and a query as HTTP sends them.
_PATH = re.compile(r"/[!-\"$-~]*")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of pushes and what they carry, in the clear. `id` is 0 before it is stored.

    `signing_secret` may list several, separated by commas: all of them sign, the first is the
    newest. `managed_by` is `code`, `file` or `api`; `disabled_at` is when it answered 410. One that
    is `local` is on the machine of whoever opens a tunnel to it: of its URL only the path is used.
    """

    id: int
    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    signing_secret: str | None = field(default=None, repr=False)
    managed_by: str = "api"
    disabled_at: datetime | None = None
    local: bool = False

    @property
    def signing_secrets(self) -> tuple[str, ...]:
        """The secrets that sign, the newest first."""
        return tuple(
            part.strip() for part in (self.signing_secret or "").split(",") if part.strip()
        )


@dataclass(frozen=True, slots=True)
class SealedEndpoint:
    """An endpoint as its row is: what is secret stays encrypted until it is sent.

    The fields are in the order of `COLUMNS`.
    """

    id: int
    name: str
    url: str
    headers: bytes | None
    signing_secret: bytes | None
    managed_by: str
    disabled_at: datetime | None
    local: bool = False

    def open(self, keyring: Keyring) -> Endpoint:
        """Return the endpoint in the clear.

        Raises:
            CannotDecrypt: a key is missing, or the row was tampered with.
        """
        headers: dict[str, str] = {}
        secret: str | None = None
        if self.headers is not None:
            headers = orjson.loads(keyring.decrypt(self.headers, place(self.name, "headers")))
        if self.signing_secret is not None:
            at = place(self.name, "signing_secret")
            secret = keyring.decrypt(self.signing_secret, at).decode()
        return Endpoint(
            self.id,
            self.name,
            self.url,
            headers,
            secret,
            self.managed_by,
            self.disabled_at,
            self.local,
        )


#: The columns of a `SealedEndpoint`, of the table `endpoints` as `e`.
COLUMNS = "e.id, e.name, e.url, e.headers, e.signing_secret, e.managed_by, e.disabled_at, e.local"

#: Where a local endpoint is: its host says no more than that, and the tunnel has its port.
LOCALHOST = "http://localhost"


def seal(endpoint: Endpoint, keyring: Keyring) -> tuple[bytes | None, bytes | None]:
    """Return the columns `headers` and `signing_secret` of `endpoint`; what is empty is not stored.

    Raises:
        ConfigurationError: something is to be encrypted, and there is no key.
    """
    headers = secret = None
    if endpoint.headers:
        plain = orjson.dumps(dict(endpoint.headers))
        headers = keyring.encrypt(plain, place(endpoint.name, "headers"))
    if endpoint.signing_secret:
        at = place(endpoint.name, "signing_secret")
        secret = keyring.encrypt(endpoint.signing_secret.encode(), at)
    return headers, secret


def placed(endpoint: Endpoint) -> Endpoint:
    """Return the endpoint as it is stored: a local one by its path alone.

    Raises:
        InvalidEndpoint: it is local, and its URL leads to another machine.
    """
    return replace(endpoint, url=_local_url(endpoint.url)) if endpoint.local else endpoint


def _local_url(url: str) -> str:
    path = url if url.startswith("/") else _path_of(url)
    if path is None:
        raise InvalidEndpoint(
            "a local endpoint is given by its path, such as /api/my-route: whoever runs "
            "`triggerkit tunnel` says at which port",
            "url",
        )
    if not _PATH.fullmatch(path):
        raise InvalidEndpoint(
            "the path has characters that must be percent-encoded, or a fragment", "url"
        )
    return f"{LOCALHOST}{path}"


def _path_of(url: str) -> str | None:
    """Return the path and the query of a URL of this machine; None of every other one."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return None
    if host not in ("localhost", "127.0.0.1", "::1") or "@" in parts.netloc:
        return None
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def place(name: str, column: str) -> str:
    """Return what a column of an endpoint is bound to: in another row or column it does not
    decrypt."""
    return f"endpoint/{name}/{column}"


def validate(endpoint: Endpoint) -> None:
    """Check that the endpoint's name, headers and secrets can be used; its URL is not looked at.

    Raises:
        InvalidEndpoint: they cannot; the message names the header, and shows no value.
    """
    if not _NAME.fullmatch(endpoint.name):
        raise InvalidEndpoint(
            "an endpoint's name has 1 to 128 letters, digits, '.', '_' and '-', and begins with a "
            "letter or digit",
            "name",
        )
    names = [name.lower() for name in endpoint.headers]
    for name, value in endpoint.headers.items():
        _validate_header(name, value)
        if names.count(name.lower()) > 1:
            raise InvalidEndpoint(f"the header {name} is given twice", "headers")
    if sum(len(n) + len(v) for n, v in endpoint.headers.items()) > MAX_HEADER_CHARS:
        raise InvalidEndpoint(
            f"the headers have more than {MAX_HEADER_CHARS} characters", "headers"
        )
    try:
        for secret in endpoint.signing_secrets:
            read_secret(secret)
    except ConfigurationError as error:
        raise InvalidEndpoint(str(error), "signing_secret") from None


def _validate_header(name: str, value: str) -> None:
    if not _HEADER_NAME.fullmatch(name):
        raise InvalidEndpoint(
            f"{name!r} is not a valid header name; use letters, digits and '-'", "headers"
        )
    if name.lower() in FRAMING:
        raise InvalidEndpoint(f"the header {name} is set by the sender; leave it out", "headers")
    if not _HEADER_VALUE.fullmatch(value):
        raise InvalidEndpoint(
            f"the header {name} has an empty value, a line break, or characters beyond ASCII",
            "headers",
        )

"""Endpoints as they are shown: the names of their headers, and of secrets a fingerprint alone."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from datetime import datetime

from triggerkit.consumers.endpoints.model import SealedEndpoint
from triggerkit.encryption import Keyring
from triggerkit.errors import CannotDecrypt


@dataclass(frozen=True, slots=True)
class OpenTunnel:
    """A tunnel that is open: whose it is, and the port that it leads to on that user's machine."""

    user: str
    port: int
    since: datetime
    is_shared: bool


@dataclass(frozen=True, slots=True)
class EndpointInfo:
    """An endpoint as it is shown: of secrets a fingerprint, of 8 hex digits, and never the value.

    `headers` maps names to fingerprints, `signing` are those of the signing secrets, the newest
    first. With a `problem` they cannot be decrypted, and are empty. Of a `local` one, `tunnels` are
    open, and so many messages of its consumers are `waiting` to go through one.
    """

    name: str
    url: str
    managed_by: str
    disabled_at: datetime | None
    consumers: list[str]
    headers: dict[str, str]
    signing: list[str]
    problem: str | None
    local: bool = False
    tunnels: list[OpenTunnel] = field(default_factory=list)
    waiting: int | None = None


def info_of(
    sealed: SealedEndpoint, keyring: Keyring, salt: bytes, consumers: list[str]
) -> EndpointInfo:
    """Describe an endpoint without its secrets; `salt` keeps fingerprints of two installations
    apart."""
    headers: dict[str, str] = {}
    signing: list[str] = []
    problem = None
    try:
        endpoint = sealed.open(keyring)
        headers = {name: _fingerprint(salt, value) for name, value in endpoint.headers.items()}
        signing = [_fingerprint(salt, secret) for secret in endpoint.signing_secrets]
    except CannotDecrypt as error:
        problem = str(error)
    return EndpointInfo(
        sealed.name,
        sealed.url,
        sealed.managed_by,
        sealed.disabled_at,
        consumers,
        headers,
        signing,
        problem,
        sealed.local,
    )


def _fingerprint(salt: bytes, value: str) -> str:
    return hmac.digest(salt, value.encode(), "sha256").hex()[:8]

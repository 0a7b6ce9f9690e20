"""Authorize and sign pushes: the headers and secrets that an endpoint knows them by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from triggerkit.consumers.endpoints.model import SealedEndpoint
from triggerkit.encryption import Keyring
from triggerkit.errors import ConfigurationError
from triggerkit.settings import Settings


@dataclass(frozen=True, slots=True)
class Credentials:
    """The endpoint's own headers, and the secrets that each sign an attempt.

    With a `problem`, such as a key that is missing, nothing is sent, and that is the outcome.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    signing_secrets: tuple[str, ...] = field(default=(), repr=False)
    problem: str | None = None


def credentials_of(sealed: SealedEndpoint, keyring: Keyring, settings: Settings) -> Credentials:
    """Return what a push to the endpoint carries: what is stored with it, else what our routes ask
    for.

    The secrets of our routes are sent to no other URL than one of `settings.public_url`, and
    through no tunnel.
    """
    try:
        endpoint = sealed.open(keyring)
        if sealed.local or not endpoint.url.startswith(f"{settings.public_url}/"):
            return Credentials(endpoint.headers, endpoint.signing_secrets)
        ours = own_credentials(settings)
    except ConfigurationError as error:
        # This consumer's alone: the others go on.
        return Credentials(problem=str(error))
    return Credentials(
        {**ours.headers, **endpoint.headers}, endpoint.signing_secrets or ours.signing_secrets
    )


def own_credentials(settings: Settings) -> Credentials:
    """Return what a push to a webhook route of ours carries; it is read from the settings, never
    stored.

    Raises:
        ConfigurationError: no secret of the webhook routes is set.
    """
    return Credentials(
        {"authorization": f"Bearer {settings.webhook_secrets[0]}"},
        tuple(settings.webhook_signing_secrets),
    )

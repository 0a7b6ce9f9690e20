"""Endpoints through the API: of their headers and secrets only names and fingerprints come out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import psycopg
from pydantic import BaseModel, SecretStr

from triggerkit.consumers.endpoints.info import EndpointInfo
from triggerkit.consumers.endpoints.model import Endpoint
from triggerkit.consumers.endpoints.store import EndpointStore
from triggerkit.consumers.tunnels.standing import with_tunnels
from triggerkit.delivery.credentials import Credentials, credentials_of
from triggerkit.delivery.http.network import Network, check_url, reachable
from triggerkit.delivery.probe import Report, probe
from triggerkit.delivery.tunnel.probe import probe_local
from triggerkit.settings import Settings
from triggerkit.web.api.operation import ACTOR, Call, Given, Page

#: A part of a secret that is shorter than this could be anything.
SHORTEST_SECRET = 6


class NewEndpoint(Given):
    """An endpoint's address, and what a push to it carries. `signing_secret` is `whsec_` and the
    base64 of 24 to 64 bytes; it may list several, separated by commas, the newest first. One that
    is `local` is on the machine of whoever runs `triggerkit tunnel`: its `url` is a path."""

    name: str
    url: str
    headers: dict[str, SecretStr] = {}
    signing_secret: SecretStr | None = None
    local: bool = False


class EditEndpoint(Given):
    """Changes of an endpoint: what is given changes. Of `headers` the named ones do; one that is
    null is sent no more, and with a null `signing_secret` pushes are signed no more."""

    url: str | None = None
    headers: dict[str, SecretStr | None] = {}
    signing_secret: SecretStr | None = None
    local: bool | None = None


class Enabled(BaseModel):
    """The consumers that are active again."""

    consumers: list[str]


async def list_endpoints(call: Call) -> Page[EndpointInfo]:
    """Return all endpoints, by name; of secrets only names and fingerprints are shown."""
    async with call.state() as state:
        return Page(data=await with_tunnels(state, await store_of(call, state).list_all()))


async def create_endpoint(call: Call, body: NewEndpoint) -> EndpointInfo:
    """Make an endpoint. Its headers and its signing secret are stored encrypted. A private address
    is refused, unless TRIGGERKIT_ALLOW_NETWORKS allows it."""
    headers = {name: value.get_secret_value() for name, value in body.headers.items()}
    secret = _plain(body.signing_secret)
    endpoint = Endpoint(0, body.name, body.url, headers, secret, local=body.local)
    async with call.state() as state:
        await store_of(call, state).create(endpoint)
        return await _shown(call, state, body.name)


async def show_endpoint(call: Call, name: str) -> EndpointInfo:
    """Return one endpoint; of secrets only names and fingerprints are shown."""
    async with call.state() as state:
        return await _shown(call, state, name)


async def edit_endpoint(call: Call, name: str, body: EditEndpoint) -> EndpointInfo:
    """Change an endpoint; what is not given stays. One that is declared in code or in
    triggerkit.toml is changed there."""
    async with call.state() as state:
        await store_of(call, state).edit(name, lambda before: edited(before, body))
        return await _shown(call, state, name)


def edited(before: Endpoint, body: EditEndpoint) -> Endpoint:
    """Return an endpoint with the changes of `body`."""
    names = {n.lower() for n in body.headers}
    kept = {n: v for n, v in before.headers.items() if n.lower() not in names}
    new = {n: v.get_secret_value() for n, v in body.headers.items() if v is not None}
    is_signing = "signing_secret" in body.model_fields_set
    secret = _plain(body.signing_secret) if is_signing else before.signing_secret
    url = before.url if body.url is None else body.url
    local = before.local if body.local is None else body.local
    return replace(before, url=url, headers={**kept, **new}, signing_secret=secret, local=local)


async def delete_endpoint(call: Call, name: str) -> None:
    """Delete an endpoint that no consumer uses."""
    async with call.state() as state:
        await store_of(call, state).delete(name)


async def enable_endpoint(call: Call, name: str) -> Enabled:
    """Push again to an endpoint that answered 410; its consumers go on where they were."""
    async with call.state() as state:
        return Enabled(consumers=await store_of(call, state).enable(name))


async def test_endpoint(call: Call, name: str) -> Report:
    """Send the endpoint a test message, signed like every other, and tell what came back, step by
    step. What fails is in the answer: the status is 200 then too."""
    async with call.state() as state:
        sealed = await store_of(call, state).load(name)
        if sealed.local:
            local = await probe_local(state, sealed)
            return _without_secrets(local, credentials_of(sealed, call.keyring, call.settings))
    # Without a connection of the state: it may take seconds.
    credentials = credentials_of(sealed, call.keyring, call.settings)
    report = await probe(name, sealed.url, credentials, _allowed(call.settings))
    return _without_secrets(report, credentials)


def _without_secrets(report: Report, credentials: Credentials) -> Report:
    secrets = _secrets(credentials)
    report.answer = without(report.answer, secrets)
    report.meaning = None if report.meaning is None else without(report.meaning, secrets)
    return report


async def _shown(call: Call, state: psycopg.AsyncConnection, name: str) -> EndpointInfo:
    [found] = await with_tunnels(state, [await store_of(call, state).show(name)])
    return found


def without(text: str, secrets: Iterable[str]) -> str:
    """`text` with stars in place of what it repeats of `secrets`, one cut short at its end too."""
    for secret in secrets:
        text = text.replace(secret, "***")
        for length in range(len(secret) - 1, SHORTEST_SECRET - 1, -1):
            if text.endswith(secret[:length]):
                text = f"{text[:-length]}***"
                break
    return text


def _secrets(credentials: Credentials) -> list[str]:
    """Return what the endpoint may repeat: the values of headers, whole and by their words."""
    found = list(credentials.signing_secrets)
    for value in credentials.headers.values():
        found += [value, *value.split()]
    return sorted((s for s in found if len(s) >= SHORTEST_SECRET), key=len, reverse=True)


def store_of(call: Call, state: psycopg.AsyncConnection, actor: str = ACTOR) -> EndpointStore:
    """Return the endpoints, for `actor` to change."""
    allowed = _allowed(call.settings)
    return EndpointStore(state, call.keyring, lambda url: check_url(url, allowed), actor)


def _allowed(settings: Settings) -> tuple[Network, ...]:
    return reachable(settings.triggerkit_allow_networks, settings.public_url)


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()

"""Pushes on real sockets: signed in each attempt, and silent about their secrets when they fail."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest
from pydantic import SecretBytes, SecretStr
from standardwebhooks import Webhook
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Received, Receiver, accept
from triggerkit.consumers.definition import changes
from triggerkit.consumers.endpoints.model import Endpoint
from triggerkit.consumers.endpoints.store import EndpointStore
from triggerkit.delivery.credentials import Credentials, credentials_of
from triggerkit.delivery.http.network import LOOPBACK, check_url
from triggerkit.delivery.push import Answer, Push, Pusher
from triggerkit.encryption import Keyring
from triggerkit.settings import Settings
from triggerkit.signature import new_secret
from triggerkit.state.connect import connect

BEARER, SIGNING = f"canary{secrets.token_hex(12)}", new_secret()

KEYRING = Keyring([SecretBytes(secrets.token_bytes(32))])


async def stored(settings: Settings, url: str) -> Credentials:
    """The credentials of an endpoint that was stored and loaded."""

    async def allowed(url: str) -> None:
        await check_url(url, LOOPBACK)

    async with await connect(settings.state_dsn, "test") as connection:
        store = EndpointStore(connection, KEYRING, allowed, "test")
        headers = {"Authorization": f"Bearer {BEARER}"}
        await store.create(Endpoint(0, "billing", url, headers, SIGNING))
        return credentials_of(await store.load("billing"), KEYRING, settings)


@dataclass
class Pushed:
    """What became of pushes to one receiver."""

    answers: list[Answer]
    requests: list[Received]


def pushed(settings: Settings, *answers: Callable[[Received], Awaitable[Response]]) -> Pushed:
    """A batch pushed once for each of `answers`."""

    async def scenario() -> Pushed:
        async with Receiver.start() as receiver, Pusher(LOOPBACK) as pusher:
            url = f"{receiver.url}/push"
            credentials = await stored(settings, url)
            seen = []
            for attempt, answer in enumerate(answers, 1):
                receiver.answer = answer
                body = b'{"data": [{"record": {"name": "canary-row"}}]}'
                seen.append(await pusher.send(Push(url, body, "msg_1", attempt, 2, credentials)))
            return Pushed(seen, receiver.requests)

    return asyncio.run(scenario())


async def fail(received: Received) -> Response:
    return Response(received.headers["authorization"], 500)


async def page(_received: Received) -> Response:
    return HTMLResponse("<!doctype html><title>Sign in</title>")


async def redirect(_received: Received) -> Response:
    return RedirectResponse("http://127.0.0.1:1/", 307)


async def hang(_received: Received) -> Response:
    await asyncio.sleep(3)
    return JSONResponse({})


def test_each_attempt_is_signed_anew_under_the_same_id(settings: Settings) -> None:
    done = pushed(settings, fail, page, accept)
    assert [a.verdict for a in done.answers] == ["endpoint_failed", "endpoint_failed", "delivered"]
    assert {r.batch_id for r in done.requests} == {"msg_1"}
    assert [r.headers["triggerkit-attempt"] for r in done.requests] == ["1", "2", "3"]
    assert len({r.headers["traceparent"] for r in done.requests}) == 3
    assert len({r.headers["traceparent"].split("-")[1] for r in done.requests}) == 1
    for request in done.requests:
        Webhook(SIGNING).verify(request.body, request.headers)
        assert request.headers["authorization"] == f"Bearer {BEARER}"


def test_a_redirect_is_not_followed_with_the_secrets(settings: Settings) -> None:
    [answer] = pushed(settings, redirect).answers
    assert (answer.verdict, answer.status, answer.error) == (
        "endpoint_failed", 307, "answered 307",
    )  # fmt: skip


def test_no_failure_tells_a_secret(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    done = pushed(settings, fail, page, redirect, hang)
    told = caplog.text + repr(done.answers)
    for secret in (BEARER, SIGNING, SIGNING[6:], "canary-row"):
        assert secret not in told
    assert {a.verdict for a in done.answers} == {"endpoint_failed"}


def test_pushes_to_our_own_routes_carry_the_bearer_and_signatures_by_all_signing_secrets(
    settings: Settings,
) -> None:
    old, new = new_secret(), new_secret()
    signing = settings.model_copy(
        update={"triggerkit_webhook_signing_secret": SecretStr(f"{new},{old}")}
    )

    async def scenario() -> Received:
        async with Receiver.start() as receiver:
            await execute(settings, "CREATE TABLE items (id bigint PRIMARY KEY)")
            await declare(signing, receiver, changes("items"))
            async with streaming(signing, receiver):
                await execute(settings, "INSERT INTO items VALUES (1)")
                await receiver.until(lambda: len(receiver.requests) == 1)
            return receiver.requests[0]

    received = asyncio.run(scenario())
    assert received.headers["authorization"] == f"Bearer {settings.webhook_secrets[0]}"
    for secret in (old, new):
        Webhook(secret).verify(received.body, received.headers)


def test_a_consumer_pushes_to_an_endpoint_with_its_headers_and_takes_in_its_changes(
    settings: Settings,
) -> None:
    key = SecretStr(secrets.token_urlsafe(32))
    keyed = settings.model_copy(update={"triggerkit_encryption_key": key})

    async def allowed(url: str) -> None:
        await check_url(url, LOOPBACK)

    async def scenario() -> list[Received]:
        async with (
            Receiver.start() as receiver,
            await connect(settings.state_dsn, "test") as state,
        ):
            keyring = Keyring(keyed.encryption_keys)
            store = EndpointStore(state, keyring, allowed, "test")
            headers = {"Authorization": f"Bearer {BEARER}"}
            await store.create(Endpoint(0, "own", f"{receiver.url}/push", headers, SIGNING))
            await execute(settings, "CREATE TABLE items (id bigint PRIMARY KEY)")
            await declare(keyed, receiver, changes("items"))
            await state.execute(
                "UPDATE triggerkit.consumers SET endpoint_id = "
                "(SELECT id FROM triggerkit.endpoints WHERE name = 'own')"
            )
            # Elsewhere than under our own URL, so that the webhook secret has no place there.
            away = keyed.model_copy(update={"triggerkit_allow_networks": "127.0.0.0/8"})
            async with streaming(away, Receiver(url="http://127.0.0.1:9")):
                await execute(settings, "INSERT INTO items VALUES (1)")
                await receiver.until(lambda: len(receiver.requests) == 1)
                await store.edit("own", lambda e: replace(e, headers={"X-Next": BEARER}))
                await execute(settings, "INSERT INTO items VALUES (2)")
                await receiver.until(lambda: "x-next" in receiver.requests[-1].headers)
            return receiver.requests

    first, *_, last = asyncio.run(scenario())
    assert first.headers["authorization"] == f"Bearer {BEARER}"
    assert "authorization" not in last.headers
    for received in (first, last):
        Webhook(SIGNING).verify(received.body, received.headers)


def test_a_missing_key_stops_only_the_consumers_that_need_it_and_says_so(
    settings: Settings,
) -> None:
    async def allowed(url: str) -> None:
        await check_url(url, LOOPBACK)

    async def scenario() -> str:
        async with (
            Receiver.start() as receiver,
            await connect(settings.state_dsn, "test") as state,
        ):
            store = EndpointStore(state, KEYRING, allowed, "test")
            await store.create(Endpoint(0, "own", f"{receiver.url}/push", {"X-Key": BEARER}))
            await execute(settings, "CREATE TABLE items (id bigint PRIMARY KEY)")
            await declare(settings, receiver, changes("items"), "locked")
            await declare(settings, receiver, changes("items"), "open")
            await state.execute(
                "UPDATE triggerkit.consumers SET endpoint_id = "
                "(SELECT id FROM triggerkit.endpoints WHERE name = 'own') WHERE name = 'locked'"
            )
            async with streaming(settings, receiver), asyncio.timeout(20):
                await execute(settings, "INSERT INTO items VALUES (1)")
                await receiver.until(lambda: len(receiver.requests) == 1)
                while True:
                    cursor = await state.execute(
                        "SELECT last_error FROM triggerkit.consumers WHERE name = 'locked'"
                    )
                    row = await cursor.fetchone()
                    if row and row[0]:
                        break
                    await asyncio.sleep(0.02)
            assert len(receiver.requests) == 1
            return str(row[0])

    error = asyncio.run(scenario())
    assert "endpoint/own/headers" in error
    assert "TRIGGERKIT_ENCRYPTION_KEY" in error

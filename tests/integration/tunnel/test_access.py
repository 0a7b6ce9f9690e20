"""Who may open a tunnel, who is refused and why, and what ends one."""

from __future__ import annotations

import asyncio

import pytest
from starlette.responses import Response

from tests.integration.pipeline import execute
from tests.integration.tunnel.world import (
    ENDPOINT,
    declare,
    laptop,
    names,
    port_of,
    rows,
    streaming,
    token_of,
    until,
    versions,
)
from tests.receiver import Received, Receiver
from triggerkit.consumers.definition import changes
from triggerkit.consumers.endpoints.store import EndpointStore
from triggerkit.consumers.tunnels.members import TunnelRefused
from triggerkit.consumers.tunnels.tokens import PREFIX, list_tokens, remove_token
from triggerkit.encryption import Keyring
from triggerkit.errors import CannotConnect
from triggerkit.settings import Settings
from triggerkit.state.connect import connect


def test_a_wrong_token_is_refused_and_then_its_address_waits_but_not_whoever_has_one(
    keyed: Settings, port: int
) -> None:
    """All who come by one proxy come from its address."""

    async def refused(port: int, token: str) -> str:
        async with laptop(port, token, {ENDPOINT: 1}) as it:
            return await it.ended()

    async def scenario() -> None:
        await declare(keyed, changes("items"))
        right = await token_of(keyed, "alice")
        for wrong in ("x", f"{PREFIX}x", right[:-1]):
            assert "does not know the token" in await refused(port, wrong)
        for _ in range(2):
            await refused(port, "x")
        assert "too many wrong tokens" in await refused(port, f"{right}x")
        async with laptop(port, right, {ENDPOINT: 1}) as it:
            assert it.readies

    asyncio.run(scenario())


def test_a_token_that_is_revoked_amid_a_delivery_leaves_it_to_the_next(
    keyed: Settings, port: int
) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items", max_attempts=1))
        took = asyncio.Event()

        async def hang(_received: Received) -> Response:
            took.set()
            await asyncio.Event().wait()
            raise AssertionError

        async with streaming(keyed), Receiver.start(hang) as hanging, Receiver.start() as app:
            token = await token_of(keyed, "alice")
            async with laptop(port, token, {ENDPOINT: port_of(hanging)}) as it:
                await execute(keyed, "INSERT INTO items VALUES (1, 'x')")
                async with asyncio.timeout(20):
                    await took.wait()
                async with await connect(keyed.state_dsn, "test") as state:
                    await remove_token(state, "alice", "test")
                assert "the token of alice was revoked" in await it.ended()
            async with laptop(port, await token_of(keyed, "bob"), {ENDPOINT: port_of(app)}):
                await app.until(lambda: names(app) == ["x"])
        assert not await rows(keyed, "SELECT FROM triggerkit.tunnel_pushes")
        assert not await rows(keyed, "SELECT FROM triggerkit.parked")

    asyncio.run(scenario())


def test_a_token_is_stored_as_its_digest_alone(keyed: Settings) -> None:
    async def scenario() -> None:
        token = await token_of(keyed, "alice")
        stored = await rows(keyed, "SELECT t::text FROM triggerkit.tunnel_tokens t")
        audited = await rows(keyed, "SELECT a::text FROM triggerkit.audit a")
        assert token not in str(stored) + str(audited)
        assert token.encode().hex() not in str(stored)

    asyncio.run(scenario())


@pytest.mark.parametrize("share", [False, True])
def test_a_second_user_is_refused_by_the_name_of_the_first(
    keyed: Settings, port: int, share: bool
) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items"))
        alice, bob = await token_of(keyed, "alice"), await token_of(keyed, "bob")
        async with (
            laptop(port, alice, {ENDPOINT: 3001}, share=share) as first,
            laptop(port, bob, {ENDPOINT: 3001}, share=not share) as second,
        ):
            refused = await second.ended()
            assert refused.startswith(f"alice has a tunnel to {ENDPOINT} since ")
            assert "--share" in refused
            assert not first.running.done()

    asyncio.run(scenario())


def test_the_same_user_takes_an_endpoint_along(keyed: Settings, port: int) -> None:
    """A command that was killed may not have been missed when it is typed again."""

    async def scenario() -> None:
        await declare(keyed, changes("items"))
        alice = await token_of(keyed, "alice")
        async with (
            streaming(keyed),
            Receiver.start() as app,
            laptop(port, alice, {ENDPOINT: 3001}) as first,
            laptop(port, alice, {ENDPOINT: port_of(app)}) as second,
        ):
            assert "has opened a tunnel to local_endpoint elsewhere" in await first.ended()
            await execute(keyed, "INSERT INTO items VALUES (1, 'x')")
            await app.until(lambda: names(app) == ["x"])
            assert not second.running.done()

    asyncio.run(scenario())


def test_users_who_share_get_the_messages_of_other_keys_in_order(
    keyed: Settings, port: int
) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items", batch_size=5))
        alice, bob = await token_of(keyed, "alice"), await token_of(keyed, "bob")
        async with (
            streaming(keyed),
            Receiver.start() as one,
            Receiver.start() as two,
            laptop(port, alice, {ENDPOINT: port_of(one)}, share=True),
            laptop(port, bob, {ENDPOINT: port_of(two)}, share=True),
        ):
            await execute(keyed, "INSERT INTO items SELECT i, 0 FROM generate_series(1, 40) i")
            for version in range(1, 4):
                await execute(keyed, f"UPDATE items SET name = {version}")
            await until(lambda: len(one.messages) + len(two.messages) == 160)
        assert versions(one).keys().isdisjoint(versions(two))
        assert versions(one)
        assert versions(two)
        for app in (one, two):
            assert all(found == [0, 1, 2, 3] for found in versions(app).values())

    asyncio.run(scenario())


def test_a_token_that_is_revoked_ends_its_tunnel_at_once_with_a_sentence(
    keyed: Settings, port: int
) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items"))
        async with streaming(keyed), Receiver.start() as app:
            token = await token_of(keyed, "alice")
            async with laptop(port, token, {ENDPOINT: port_of(app)}) as it:
                async with await connect(keyed.state_dsn, "test") as state:
                    assert [t.endpoints for t in await list_tokens(state)] == [[ENDPOINT]]
                    await remove_token(state, "alice", "test")
                    await execute(keyed, "INSERT INTO items VALUES (1, 'kept')")
                assert "the token of alice was revoked" in await it.ended()
                assert isinstance(it.running.exception(), TunnelRefused)
            assert app.requests == []
            bob = await token_of(keyed, "bob")
            async with laptop(port, bob, {ENDPOINT: port_of(app)}):
                await app.until(lambda: names(app) == ["kept"])

    asyncio.run(scenario())


def test_an_endpoint_that_is_not_local_any_more_ends_its_tunnel(keyed: Settings, port: int) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items"))
        async with laptop(port, await token_of(keyed, "alice"), {ENDPOINT: 3001}) as it:
            async with await connect(keyed.state_dsn, "test") as state:
                await state.execute("UPDATE triggerkit.endpoints SET local = false")
            assert "is not local any more" in await it.ended()

    asyncio.run(scenario())


def test_an_unknown_endpoint_is_named_with_a_hint(keyed: Settings, port: int) -> None:
    async def scenario() -> None:
        await declare(keyed, changes("items"))
        async with await connect(keyed.state_dsn, "test") as state:

            async def allowed(_url: str) -> None: ...

            store = EndpointStore(state, Keyring([]), allowed, "test")
            from_afar = "INSERT INTO triggerkit.endpoints (name, url) VALUES ('afar', 'http://x/')"
            await state.execute(from_afar)
            assert [e.local for e in await store.list_all()] == [False, True]
        token = await token_of(keyed, "alice")
        async with laptop(port, token, {"local_endpiont": 3001}) as it:
            refused = await it.ended()
            assert "no local endpoint is named 'local_endpiont'; did you mean" in refused
            assert "endpoints create local_endpiont /api/my-route --local" in refused
        async with laptop(port, token, {"afar": 3001}) as it:
            assert "triggerkit endpoints edit afar --local" in await it.ended()

    asyncio.run(scenario())


def test_where_nothing_serves_is_told_at_once(keyed: Settings) -> None:
    async def scenario() -> None:
        async with laptop(1, "x", {ENDPOINT: 3001}) as it:
            assert "cannot connect to 127.0.0.1:1" in await it.ended()
            assert isinstance(it.running.exception(), CannotConnect)

    asyncio.run(scenario())

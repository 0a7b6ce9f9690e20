"""Endpoints in a real database: stored encrypted, shown without values, changed with a trace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from pydantic import SecretBytes

from triggerkit.consumers.endpoints.model import Endpoint, SealedEndpoint, seal
from triggerkit.consumers.endpoints.store import EndpointStore
from triggerkit.delivery.credentials import credentials_of
from triggerkit.delivery.http.network import check_url
from triggerkit.encryption import Keyring
from triggerkit.errors import (
    CannotDecrypt,
    ConfigurationError,
    EndpointConflict,
    InvalidEndpoint,
    UnknownEndpoint,
)
from triggerkit.settings import Settings
from triggerkit.signature import new_secret
from triggerkit.state.channels import CONSUMERS
from triggerkit.state.connect import connect

OLD, NEW = SecretBytes(b"o" * 32), SecretBytes(b"n" * 32)

SECRET, NEXT = new_secret(), new_secret()

#: A public address as a number: nothing is resolved, and nothing is connected to.
URL = "https://93.184.216.34/hook"

BILLING = Endpoint(0, "billing", URL, {"Authorization": "Bearer canary-header"}, SECRET)


async def public(url: str) -> None:
    await check_url(url, ())


@asynccontextmanager
async def opened(settings: Settings, *keys: SecretBytes) -> AsyncIterator[EndpointStore]:
    async with await connect(settings.state_dsn, "test") as connection:
        yield EndpointStore(connection, Keyring(keys), public, "test:somebody")


def use(
    settings: Settings, do: Callable[[EndpointStore], Awaitable[Any]], *keys: SecretBytes
) -> Any:
    async def scenario() -> Any:
        async with opened(settings, *(keys or (NEW,))) as store:
            return await do(store)

    return asyncio.run(scenario())


def rows(settings: Settings, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def add_consumer(settings: Settings, name: str, state: str = "active") -> None:
    """A consumer of the endpoint `billing`."""
    with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO triggerkit.databases (name, slot_name, publication_name) "
            "VALUES ('d', 's', 'p') ON CONFLICT DO NOTHING"
        )
        connection.execute(
            "INSERT INTO triggerkit.consumers (name, database_id, endpoint_id, kind, definition, "
            "state) SELECT %s, d.id, e.id, 'changes', '{}', %s "
            "FROM triggerkit.databases d, triggerkit.endpoints e WHERE e.name = 'billing'",
            [name, state],
        )


def test_an_endpoint_is_stored_encrypted_and_loaded_as_it_was(settings: Settings) -> None:
    use(settings, lambda store: store.create(BILLING))
    [(headers, secret)] = rows(settings, "SELECT headers, signing_secret FROM triggerkit.endpoints")
    assert b"canary" not in headers
    assert SECRET.encode() not in secret
    loaded = use(settings, lambda store: store.load("billing"))
    endpoint = loaded.open(Keyring([NEW]))
    assert endpoint == replace(BILLING, id=endpoint.id)
    assert "canary" not in repr(endpoint)
    assert SECRET not in repr(endpoint)


def test_what_is_secret_of_one_endpoint_does_not_open_in_another_or_in_another_column(
    settings: Settings,
) -> None:
    use(settings, lambda store: store.create(BILLING))
    use(settings, lambda store: store.create(replace(BILLING, name="other")))
    loaded: SealedEndpoint = use(settings, lambda store: store.load("billing"))
    swaps = [replace(loaded, name="other"), replace(loaded, headers=loaded.signing_secret)]
    for swapped in swaps:
        with pytest.raises(CannotDecrypt):
            swapped.open(Keyring([NEW]))


def test_what_is_shown_has_names_and_fingerprints_and_no_values(settings: Settings) -> None:
    use(settings, lambda store: store.create(BILLING))
    use(settings, lambda store: store.create(replace(BILLING, name="again")))
    use(settings, lambda store: store.create(Endpoint(0, "plain", URL)))
    again, billing, plain = use(settings, lambda store: store.list_all())
    assert (again.name, billing.name, plain.name) == ("again", "billing", "plain")
    assert list(billing.headers) == ["Authorization"]
    assert len(billing.headers["Authorization"]) == 8
    assert billing.headers == again.headers, "the same value is known by its fingerprint"
    assert len(billing.signing) == 1
    assert (plain.headers, plain.signing, plain.problem) == ({}, [], None)
    for canary in ("canary", SECRET, SECRET[6:20]):
        assert canary not in repr([again, billing, plain])
    assert use(settings, lambda store: store.show("billing")) == billing


def test_an_endpoint_without_secrets_needs_no_key(settings: Settings) -> None:
    async def scenario() -> None:
        async with opened(settings) as store:
            await store.create(Endpoint(0, "plain", URL))
            with pytest.raises(ConfigurationError, match="TRIGGERKIT_ENCRYPTION_KEY"):
                await store.create(BILLING)
            assert [e.name for e in await store.list_all()] == ["plain"]

    asyncio.run(scenario())


def test_a_key_that_is_missing_hides_nothing_but_the_secrets(settings: Settings) -> None:
    use(settings, lambda store: store.create(BILLING), OLD)
    [shown] = use(settings, lambda store: store.list_all(), NEW)
    assert (shown.name, shown.headers, shown.signing) == ("billing", {}, [])
    assert "TRIGGERKIT_ENCRYPTION_KEY" in shown.problem
    sealed = use(settings, lambda store: store.load("billing"))
    credentials = credentials_of(sealed, Keyring([NEW]), settings)
    assert credentials.problem is not None
    assert "endpoint/billing/headers" in credentials.problem


def test_keys_are_rotated_without_a_gap(settings: Settings) -> None:
    use(settings, lambda store: store.create(BILLING), OLD)
    use(settings, lambda store: store.create(Endpoint(0, "plain", URL)), OLD)
    with pytest.raises(CannotDecrypt):
        use(settings, lambda store: store.reencrypt(), NEW)
    assert use(settings, lambda store: store.reencrypt(), NEW, OLD) == ["billing"]
    assert use(settings, lambda store: store.reencrypt(), NEW, OLD) == []
    loaded: SealedEndpoint = use(settings, lambda store: store.load("billing"))
    assert loaded.open(Keyring([NEW])).headers == BILLING.headers


def test_an_edit_changes_what_it_names_and_checks_the_rest(settings: Settings) -> None:
    use(settings, lambda store: store.create(BILLING))

    def edit(**changes: Any) -> Endpoint:
        edited: Endpoint = use(
            settings, lambda store: store.edit("billing", lambda e: replace(e, **changes))
        )
        return edited

    assert edit(signing_secret=f"{NEXT},{SECRET}").signing_secrets == (NEXT, SECRET)
    assert edit(url=f"{URL}/2").headers == BILLING.headers
    refused: list[dict[str, Any]] = [
        {"url": "http://10.0.0.1/"},
        {"headers": {"host": "x"}},
        {"signing_secret": f"{SECRET},whsec_short"},
    ]
    for change in refused:
        with pytest.raises(InvalidEndpoint):
            edit(**change)
    edit(headers={}, signing_secret=None)
    assert rows(settings, "SELECT url, headers, signing_secret FROM triggerkit.endpoints") == [
        (f"{URL}/2", None, None)
    ]


def test_edits_at_a_time_follow_each_other(settings: Settings) -> None:
    use(settings, lambda store: store.create(BILLING))

    async def add(number: int) -> None:
        async with opened(settings, NEW) as store:
            await store.edit(
                "billing", lambda e: replace(e, headers={**e.headers, f"x-{number}": "1"})
            )

    async def scenario() -> None:
        await asyncio.gather(*(add(number) for number in range(5)))

    asyncio.run(scenario())
    shown = use(settings, lambda store: store.show("billing"))
    assert len(shown.headers) == 6


@pytest.mark.parametrize(
    "headers",
    [{"Host": "x"}, {"content-length": "1"}, {"Transfer-Encoding": "chunked"}, {"Connection": "x"},
     {"x": "a\r\nhost: b"}, {"x": "a\nb"}, {"x\r\ny": "a"}, {"x y": "a"}, {"": "a"}, {"x": ""},
     {"x": "é"}, {"x": " a"}, {"x": "a\x00"}, {"x:": "a"}, {"X-A": "1", "x-a": "2"},
     {"x": "a" * 20_000}],
    ids=repr,
)  # fmt: skip
def test_headers_that_break_a_request_are_refused_without_showing_them(
    settings: Settings, headers: dict[str, str]
) -> None:
    with pytest.raises(InvalidEndpoint) as raised:
        use(settings, lambda store: store.create(Endpoint(0, "x", URL, headers)))
    assert "a" * 100 not in str(raised.value)
    assert rows(settings, "SELECT 1 FROM triggerkit.endpoints") == []


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "é", "x" * 129, "a\n"])
def test_names_that_cannot_be_typed_are_refused(settings: Settings, name: str) -> None:
    with pytest.raises(InvalidEndpoint, match="name"):
        use(settings, lambda store: store.create(Endpoint(0, name, URL)))


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8000/", "http://169.254.169.254/latest/", "http://[::1]/", "ftp://x/",
     "https://user:hunter2@93.184.216.34/", "http://no-such-host.invalid/", "nonsense"],
)  # fmt: skip
def test_urls_that_no_push_reaches_are_refused(settings: Settings, url: str) -> None:
    with pytest.raises(InvalidEndpoint) as raised:
        use(settings, lambda store: store.create(Endpoint(0, "x", url)))
    assert "hunter2" not in str(raised.value)
    if "127" in url or "169" in url or "::1" in url:
        assert "TRIGGERKIT_ALLOW_NETWORKS" in str(raised.value)


def test_a_name_is_taken_once(settings: Settings) -> None:
    use(settings, lambda store: store.create(BILLING))
    with pytest.raises(EndpointConflict, match="triggerkit endpoints edit billing"):
        use(settings, lambda store: store.create(BILLING))


def test_an_endpoint_in_use_is_not_deleted_and_its_consumers_are_named(settings: Settings) -> None:
    use(settings, lambda store: store.create(BILLING))
    add_consumer(settings, "orders")
    add_consumer(settings, "invoices")
    with pytest.raises(EndpointConflict, match="invoices, orders"):
        use(settings, lambda store: store.delete("billing"))
    assert use(settings, lambda store: store.show("billing")).consumers == ["invoices", "orders"]
    rows(settings, "DELETE FROM triggerkit.consumers RETURNING 1")
    use(settings, lambda store: store.delete("billing"))
    for do in (
        lambda store: store.delete("billing"),
        lambda store: store.show("billing"),
        lambda store: store.enable("billing"),
        lambda store: store.edit("billing", lambda e: e),
    ):
        with pytest.raises(UnknownEndpoint, match="billing"):
            use(settings, do)


def test_what_is_declared_elsewhere_is_changed_there(settings: Settings) -> None:
    use(settings, lambda store: store.create(replace(BILLING, managed_by="code")))
    for do in (
        lambda store: store.delete("billing"),
        lambda store: store.edit("billing", lambda e: e),
    ):
        with pytest.raises(EndpointConflict, match="in code"):
            use(settings, do)


def test_an_endpoint_that_was_gone_is_enabled_with_the_consumers_it_stopped(
    settings: Settings,
) -> None:
    use(settings, lambda store: store.create(BILLING))
    rows(settings, "UPDATE triggerkit.endpoints SET disabled_at = now() RETURNING 1")
    add_consumer(settings, "stopped", "disabled")
    add_consumer(settings, "paused", "paused")
    assert use(settings, lambda store: store.show("billing")).disabled_at is not None
    assert use(settings, lambda store: store.enable("billing")) == ["stopped"]
    assert rows(settings, "SELECT name, state FROM triggerkit.consumers ORDER BY name") == [
        ("paused", "paused"),
        ("stopped", "active"),
    ]
    assert use(settings, lambda store: store.show("billing")).disabled_at is None


def test_each_change_is_audited_without_secrets_and_tells_the_stream(settings: Settings) -> None:
    async def scenario() -> list[str]:
        async with await connect(settings.state_dsn, "test") as listening:
            await listening.execute(f"LISTEN {CONSUMERS}")
            async with opened(settings, NEW, OLD) as store:
                await store.create(BILLING)
                await store.edit("billing", lambda e: replace(e, headers={"x-key": "canary-2"}))
                await store.enable("billing")
                await store.delete("billing")
            return [n.channel async for n in listening.notifies(timeout=10, stop_after=4)]

    assert len(asyncio.run(scenario())) == 4
    found = rows(
        settings, "SELECT actor, action, subject, detail FROM triggerkit.audit ORDER BY id"
    )
    assert [action for _, action, _, _ in found] == [
        "endpoint.create",
        "endpoint.edit",
        "endpoint.enable",
        "endpoint.delete",
    ]
    assert {(actor, subject) for actor, _, subject, _ in found} == {("test:somebody", "billing")}
    assert found[1][3] == {"url": URL, "headers": ["x-key"], "signing_secrets": 1}
    assert "canary" not in repr(found)
    assert SECRET not in repr(found)


def test_only_urls_of_ours_get_the_secret_of_our_routes(settings: Settings) -> None:
    own = settings.model_copy(update={"triggerkit_public_url": "https://app.example.com"})

    def sent(url: str, headers: dict[str, str] | None = None) -> dict[str, str]:
        endpoint = Endpoint(0, "x", url, headers or {})
        columns = seal(endpoint, Keyring([NEW]))
        sealed = SealedEndpoint(1, "x", url, *columns, managed_by="code", disabled_at=None)
        return dict(credentials_of(sealed, Keyring([NEW]), own).headers)

    bearer = f"Bearer {settings.webhook_secrets[0]}"
    assert sent("https://app.example.com/api/x") == {"authorization": bearer}
    for url in (
        "https://app.example.com.evil.example/api/x",
        "https://app.example.com@evil.example/",
        "http://app.example.com/api/x",
        "https://evil.example/https://app.example.com/",
    ):
        assert sent(url, {"x": "1"}) == {"x": "1"}

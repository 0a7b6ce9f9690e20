"""Hosts are looked up beside each other: one that nobody answers for holds up no other."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from triggerkit.delivery.http import resolver as module
from triggerkit.delivery.http.connection import CannotReach
from triggerkit.delivery.http.resolver import Resolver

FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 80))]


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names that the system was asked for; for those with "slow" it does not answer."""
    asked: list[str] = []
    ended = threading.Event()

    def getaddrinfo(host: str, *_args: Any, **_options: Any) -> list[Any]:
        asked.append(host)
        if "slow" in host:
            ended.wait(30)
        if "none" in host:
            raise socket.gaierror("unknown")
        return FOUND

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield asked
    ended.set()


def test_slow_lookups_hold_up_no_other(
    answered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOKUP_S", 0.5)

    async def scenario() -> None:
        resolver = Resolver()
        slow = [
            asyncio.create_task(resolver.addresses_of(f"slow-{number % 40}.example", 80))
            for number in range(200)
        ]
        await asyncio.sleep(0)
        async with asyncio.timeout(0.4):
            assert await resolver.addresses_of("fast.example", 80) == ["192.0.2.7"]
        failed = await asyncio.gather(*slow, return_exceptions=True)
        assert all(isinstance(error, CannotReach) for error in failed)
        with pytest.raises(CannotReach, match=r"slow-1\.example: its address was not found"):
            await resolver.addresses_of("slow-1.example", 80)

    asyncio.run(scenario())
    assert sorted(answered) == sorted([*{f"slow-{n}.example" for n in range(40)}, "fast.example"])


def test_no_more_lookups_are_under_way_than_the_limit(
    answered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_LOOKUPS", 1)

    async def scenario() -> None:
        resolver = Resolver()
        waiting = asyncio.create_task(resolver.addresses_of("slow.example", 80))
        await asyncio.sleep(0)
        with pytest.raises(CannotReach, match="too many"):
            await resolver.addresses_of("fast.example", 80)
        waiting.cancel()

    asyncio.run(scenario())
    assert answered == ["slow.example"]


def test_an_address_is_not_looked_up_and_an_unknown_host_is_named(answered: list[str]) -> None:
    async def scenario() -> None:
        resolver = Resolver()
        assert await resolver.addresses_of("192.0.2.1", 80) == ["192.0.2.1"]
        assert await resolver.addresses_of("2001:db8::1", 80) == ["2001:db8::1"]
        for _ in range(2):
            with pytest.raises(CannotReach, match=r"none\.example has no address: unknown"):
                await resolver.addresses_of("none.example", 80)

    asyncio.run(scenario())
    assert answered == ["none.example"] * 2

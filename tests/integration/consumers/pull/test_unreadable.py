"""A pulled consumer of rows that Postgres takes and a parser does not: it never fails for them."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from tests.integration.consumers.pull.pulling import NAME, pulling
from triggerkit import Change
from triggerkit.consumers.definition import ConsumerDefinition, changes
from triggerkit.consumers.parked.rekey import rekey
from triggerkit.state.connect import connect

STRANGE = [rb'"\ud800"', b"1e400", b"[" * 1000 + b"]" * 1000]


def always(change: Change[Any]) -> bool:
    return True


def same(change: Change[Any]) -> Any:
    return change.record


DELIVERED: dict[str, ConsumerDefinition] = {
    "plain": changes("items"),
    "group_by": changes("items", group_by=["doc"]),
    "when_changed": changes("items", when_changed=["v"]),
    "filters": changes("items", filters=[("id", ">", 0)]),
}

PARKED: dict[str, ConsumerDefinition] = {
    "filter": changes("items", filter=always),
    "transform": changes("items", transform=same),
}


@pytest.mark.parametrize("option", DELIVERED)
def test_it_is_handed_out_handed_back_and_handed_out_again(database_url: str, option: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url, DELIVERED[option]) as pull:
            for number, value in enumerate(STRANGE):
                await pull.log([number + 1], doc=orjson.Fragment(value))
            given = await pull.puller.receive(NAME, 100)
            ack_ids = [m.split(b'"')[3].decode() for m in given.messages]
            assert len(ack_ids) == 3
            assert await pull.puller.nack(NAME, ack_ids, 0) == []
            again = await pull.puller.receive(NAME, 100)
            assert len(again.messages) == 3
            assert any(STRANGE[0] in message for message in again.messages)

    asyncio.run(scenario())


@pytest.mark.parametrize("option", PARKED)
def test_it_is_parked_alone_where_a_function_would_read_it(database_url: str, option: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url, PARKED[option]) as pull:
            for number, value in enumerate([*STRANGE[:2], b"1"]):
                await pull.log([number + 1], doc=orjson.Fragment(value))
            given = await pull.puller.receive(NAME, 100)
            assert len(given.messages) == 1
            assert [state for _, state, _ in await pull.parked()] == ["blocked", "blocked"]

    asyncio.run(scenario())


def test_it_is_put_in_order_anew_when_the_groups_are_others(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            await pull.log([1], doc=orjson.Fragment(STRANGE[0]))
            given = await pull.puller.receive(NAME, 100)
            await pull.puller.nack(NAME, [m.split(b'"')[3].decode() for m in given.messages], 60)
            async with await connect(database_url, "test") as state:
                await rekey(state, 1, changes("items", group_by=["doc"]))
            keys = await pull.execute("SELECT key FROM triggerkit.parked")
            assert keys == [(r'["\ud800"]',)]

    asyncio.run(scenario())

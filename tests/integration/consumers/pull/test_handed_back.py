"""Pulled messages that are handed back or fail: their keys wait, and the others do not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.consumers.pull.pulling import NAME, ids, pulling, same_partition
from triggerkit import Change
from triggerkit.consumers.definition import changes
from triggerkit.consumers.parked.manage import retry_parked


def failing_at_three(change: Change[Any]) -> dict[str, Any]:
    if change.record["id"] == 3 and not Path(change.record["mended"]).exists():
        raise ValueError(change.record)
    return {"row": change.record["id"]}


def test_what_is_handed_back_comes_after_its_delay_and_its_key_waits(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            one, other = same_partition(2)
            await pull.log([one, other])
            received = await pull.receive()
            assert await pull.nack(received[:1], delay_s=60) == []
            await pull.ack(received[1:])
            await pull.log([one, other, one])
            behind = await pull.receive()
            assert ids(behind) == [other]
            await pull.ack(behind)
            assert [(state, tries) for _, state, tries in await pull.parked()] == [
                ("failing", 1), ("waiting", 0), ("waiting", 0)
            ]  # fmt: skip
            await pull.expire()
            order = []
            for _ in range(3):
                due = await pull.receive()
                assert await pull.receive() == []
                order += [(m.id, m.version) for m in due]
                assert await pull.ack(due) == []
            assert order == [(one, 0), (one, 2), (one, 4)]
            assert await pull.parked() == []
            assert due[0].json["ack_id"].startswith("p")

    asyncio.run(scenario())


def test_of_several_handed_back_of_one_key_the_first_comes_first(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url) as pull:
            await pull.log([1, 1, 1])
            received = await pull.receive()
            await pull.nack(received[2:])
            assert await pull.receive() == [], "an earlier one of its key is still held"
            await pull.nack(received[1:2])
            await pull.nack(received[:1])
            versions = []
            for _ in range(3):
                due = await pull.receive()
                versions += [m.version for m in due]
                await pull.ack(due)
            assert versions == [0, 1, 2]

    asyncio.run(scenario())


@pytest.mark.parametrize(("policy", "state"), [("block", "blocked"), ("skip", "dead")])
def test_attempts_that_are_used_up_block_the_key_or_let_it_go(
    database_url: str, policy: Any, state: str
) -> None:
    async def scenario() -> None:
        definition = changes("items", max_attempts=2, on_exhausted=policy)
        async with pulling(database_url, definition) as pull:
            await pull.log([1, 2])
            one = [m for m in await pull.receive() if m.id == 1]
            await pull.nack(one)
            await pull.log([1])
            again = await pull.receive()
            await pull.nack([m for m in again if m.id == 1])
            assert (await pull.parked())[0][1:] == (state, 2)
            behind = [m.version for m in await pull.receive() if m.id == 1]
            assert behind == ([] if policy == "block" else [2])

    asyncio.run(scenario())


def test_a_transform_s_result_stands_under_message_and_its_failures_are_set_aside(
    database_url: str, tmp_path: Path
) -> None:
    mended_file = tmp_path / "mended"

    async def scenario() -> None:
        definition = changes("items", transform=failing_at_three)
        async with pulling(database_url, definition) as pull:
            await pull.log([2, 3, 3], mended=str(mended_file))
            received = await pull.receive()
            assert [m.json["message"] for m in received] == [{"row": 2}]
            assert await pull.ack(received) == []
            assert [state for _, state, _ in await pull.parked()] == ["blocked", "waiting"]
            reasons = await pull.execute("SELECT reason FROM triggerkit.parked ORDER BY position")
            assert reasons[0] == ("the transform raised ValueError",)
            mended_file.touch()
            async with await psycopg.AsyncConnection.connect(pull.url, autocommit=True) as state:
                assert await retry_parked(state, NAME, "test", position=2) == 1
            mended = await pull.receive()
            assert [m.json["message"] for m in mended] == [{"row": 3}]
            assert await pull.ack(mended) == []
            assert [m.json["message"] for m in await pull.receive()] == [{"row": 3}]

    asyncio.run(scenario())

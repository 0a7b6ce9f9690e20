"""What a pulled consumer's functions do to the process that calls them reaches no other message."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.integration.consumers.pull.pulling import NAME, Pulling, pulling
from triggerkit import Change
from triggerkit.consumers.definition import ConsumerDefinition, changes
from triggerkit.consumers.pull import calls
from triggerkit.errors import ConfigurationError
from triggerkit.project import call_own

Item = Change[dict[str, Any]]

kept: list[bytes] = []


def difficult(change: Item) -> bool:
    match change.record.get("name"):
        case "hangs":
            while True:
                pass
        case "sleeps":
            time.sleep(1000)
        case "ends":
            os._exit(0)
        case "exits":
            sys.exit(3)
        case "crashes":
            os.kill(os.getpid(), signal.SIGKILL)
        case "grows":
            while True:
                kept.append(bytes(1 << 26))
        case "unwanted":
            return False
    return True


def difficult_to_make(change: Item) -> dict[str, Any]:
    difficult(change)
    return change.record


def slow(change: Item) -> dict[str, Any]:
    time.sleep(0.05)
    return change.record


def only_fresh(change: Item) -> bool:
    """Want what was not handed back: the state of something else."""
    return not os.path.exists(change.record["name"])


OPTIONS: dict[str, ConsumerDefinition] = {
    "filter": changes("items", filter=difficult),
    "transform": changes("items", transform=difficult_to_make),
    "grouped": changes("items", filter=difficult, group_by=["id"]),
}


async def all_of(pull: Pulling) -> list[int]:
    """Receive and acknowledge until there is nothing left; the rows in order."""
    found: list[int] = []
    while given := await pull.puller.receive(NAME, 7):
        received = rows(given.body())
        if not received:
            return found
        found += [row for row, _ in received]
        assert await pull.puller.ack(NAME, [ack_id for _, ack_id in received]) == []
    return found


def rows(body: bytes) -> list[tuple[int, str]]:
    """The ids and ack ids of what was received, transformed or not."""
    return [
        (int(m.get("record", m.get("message"))["id"]), m["ack_id"])
        for m in orjson.loads(body)["data"]
    ]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("hangs", "took longer than 0.5 s"),
        ("sleeps", "took longer than 0.5 s"),
        ("ends", "ended the process that called it"),
        ("crashes", "ended the process that called it"),
        ("exits", "raised SystemExit"),
        ("grows", "raised MemoryError"),
    ],
)
def test_a_message_at_which_a_function_does_not_return_is_parked_and_the_others_go_on(
    database_url: str, monkeypatch: pytest.MonkeyPatch, option: str, name: str, what: str
) -> None:
    monkeypatch.setattr("triggerkit.consumers.calls.functions.CALL_S", 0.5)

    async def scenario() -> None:
        async with pulling(database_url, OPTIONS[option]) as pull:
            await pull.log(range(1, 10), name="good")
            await pull.log([10], name=name)
            await pull.log(range(11, 31), name="good")
            assert sorted(await all_of(pull)) == [n for n in range(1, 31) if n != 10]
            reasons = await pull.execute("SELECT state, reason FROM triggerkit.parked")
            function = "transform" if option == "transform" else "filter"
            assert reasons == [("blocked", f"the {function} {what}")]
            await pull.log([10], name="good")
            assert await all_of(pull) == []
            assert [state for _, state, _ in await pull.parked()] == ["blocked", "waiting"]

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_other_calls_go_on_while_functions_compute(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.consumers.calls.functions.CALL_S", 1.0)

    async def scenario() -> None:
        async with pulling(database_url, OPTIONS["filter"]) as pull:
            await pull.log([1], name="hangs")
            receiving = [asyncio.create_task(pull.puller.receive(NAME, 1)) for _ in range(20)]
            steps = 0
            while not receiving[0].done():
                # More receive than there are connections; none of these is held.
                await asyncio.wait_for(pull.puller.place(NAME), 0.5)
                await asyncio.sleep(0.01)
                steps += 1
            assert steps > 20
            assert not any(one.messages for one in await asyncio.gather(*receiving))
            assert len(await pull.parked()) == 1

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_caller_gets_what_was_made_in_time(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "PATIENCE_S", 0.3)

    async def scenario() -> None:
        async with pulling(database_url, changes("items", transform=slow)) as pull:
            await pull.log(range(1, 101))
            given = rows((await pull.puller.receive(NAME, 100)).body())
            assert 0 < len(given) < 40
            rest = [row for row, _ in rows((await pull.puller.receive(NAME, 100)).body())]
            assert rest
            assert not {row for row, _ in given} & set(rest)

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_callers_at_once_share_what_is_there(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url, OPTIONS["filter"]) as pull:
            await pull.log(range(1, 201), name="good")
            given = await asyncio.gather(*(pull.puller.receive(NAME, 10) for _ in range(5)))
            found = [row for one in given for row, _ in rows(one.body())]
            assert len(found) == len(set(found)) == 50

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_what_is_handed_back_is_made_anew_and_stays_wanted(
    database_url: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.consumers.calls.functions.CALL_S", 0.5)

    async def scenario() -> None:
        definition = changes("items", filter=only_fresh, transform=difficult_to_make)
        async with pulling(database_url, definition) as pull:
            mark = tmp_path / "was-handed-out"
            await pull.log([1], name=str(mark))
            [(row, ack_id)] = rows((await pull.puller.receive(NAME, 5)).body())
            mark.touch()
            assert await pull.puller.nack(NAME, [ack_id], 0) == []
            again = rows((await pull.puller.receive(NAME, 5)).body())
            assert [row] == [of for of, _ in again]

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_another_function_takes_over_and_the_process_of_the_first_ends(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url, OPTIONS["filter"]) as pull:
            await pull.log([1], name="unwanted")
            assert await pull.receive() == []
            await pull.log([2], name="unwanted")
            await pull.execute(
                "UPDATE triggerkit.consumers SET definition = definition - 'filter' "
                f"|| jsonb_build_object('transform', '{__name__}:slow')"
            )
            assert [row for row, _ in rows((await pull.puller.receive(NAME, 5)).body())] == [2]
            await pull.puller.close()
            assert children() == []

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_many_that_nobody_wants_are_passed_in_few_looks(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url, OPTIONS["filter"]) as pull:
            await pull.log(range(1, 5001), name="unwanted")
            await pull.log([5001], name="good")
            began = time.monotonic()
            [(row, _)] = rows((await pull.puller.receive(NAME, 1)).body())
            assert row == 5001
            assert time.monotonic() - began < 10

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_process_that_is_killed_between_two_calls_is_started_anew(database_url: str) -> None:
    async def scenario() -> None:
        async with pulling(database_url, OPTIONS["filter"]) as pull:
            await pull.log([1], name="good")
            assert len(rows((await pull.puller.receive(NAME, 5)).body())) == 1
            [child] = children()
            os.kill(child, signal.SIGKILL)
            await pull.log([2, 3], name="good")
            await pull.expire()
            received = await all_of(pull)
            assert await pull.parked() == []
            assert sorted(received) == [1, 2, 3]

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_functions_whose_import_does_not_end_are_told_and_others_go_on(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggerkit.consumers.calls.process.LOAD_S", 1.0)
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(1000)\n")
    monkeypatch.syspath_prepend(tmp_path)
    call_own(["slow_to_import"])

    async def scenario() -> None:
        async with pulling(database_url, OPTIONS["filter"]) as pull:
            await pull.log([1], name="good")
            await pull.execute(
                "UPDATE triggerkit.consumers SET definition = definition "
                """|| '{"filter": "slow_to_import:wanted"}'"""
            )
            receiving = [asyncio.create_task(pull.puller.receive(NAME, 1)) for _ in range(3)]
            while not all(one.done() for one in receiving):
                await asyncio.wait_for(pull.puller.place(NAME), 0.5)
                await asyncio.sleep(0.01)
            for one in receiving:
                with pytest.raises(ConfigurationError, match="cannot be loaded within 1 s"):
                    await one
            assert children() == []
            assert await pull.parked() == []

    asyncio.run(asyncio.wait_for(scenario(), 30))


def children() -> list[int]:
    """The processes of functions that this one has."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [
        int(pid) for pid in found if b"calls.child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]

"""What a consumer's functions do to the process that calls them reaches no other message."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.parked import TABLE, carrying, fetch, until_states
from tests.integration.pipeline import declare, execute, pipeline, streaming
from tests.receiver import Receiver
from triggerkit import Change
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings

Item = Change[dict[str, str]]


def fork() -> int:
    """Fork; the number of who is forked is written into the file that the environment names: by
    the other one, since who is forked may be ended before."""
    pid = os.fork()
    if pid:
        Path(os.environ["FORKED"]).write_text(str(pid))
    return pid


def difficult(change: Item) -> bool:
    name = change.record["name"]
    if name == "hangs":
        while True:
            pass
    if name == "sleeps":
        time.sleep(1000)
    if name == "ends":
        os._exit(0)
    if name == "forks" and not fork():
        time.sleep(1000)
    if name == "leaves another" and fork():
        os._exit(0)
    elif name == "leaves another":
        time.sleep(1000)
    if name == "doubles":
        fork()
    print("to nobody's harm")
    return True


def slow(change: Item) -> dict[str, Any]:
    time.sleep(0.05)
    return {"record": change.record, "metadata": {"record_pks": ["0"]}}


def difficult_to_make(change: Item) -> dict[str, str]:
    difficult(change)
    return change.record


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hangs", "the filter took longer than 0.5 s"),
        ("sleeps", "the filter took longer than 0.5 s"),
        ("ends", "the filter ended the process that called it"),
    ],
)
def test_a_message_at_which_a_function_does_not_return_is_parked_and_the_others_go_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    monkeypatch.setattr("triggerkit.consumers.calls.functions.CALL_S", 0.5)

    async def scenario() -> None:
        definition = changes("items", filter=difficult, batch_size=10)
        async with pipeline(settings, definition, TABLE) as receiver:
            await execute(
                settings,
                f"INSERT INTO items SELECT n, CASE n WHEN 9 THEN '{name}' ELSE 'good' END "
                "FROM generate_series(1, 40) n",
            )
            await receiver.until(lambda: len(receiver.messages) == 39)
            await until_states(settings, "failing")
            assert await fetch(settings, "SELECT reason FROM triggerkit.parked") == [(reason,)]
            await execute(settings, "UPDATE items SET name = 'behind' WHERE id = 9")
            await until_states(settings, "failing", "waiting")

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["forks", "leaves another", "doubles"])
def test_processes_that_a_function_forks_answer_for_no_message_and_end_with_its_own(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    forked = tmp_path / "forked"
    monkeypatch.setenv("FORKED", str(forked))

    async def scenario() -> None:
        definition = changes("items", filter=difficult, batch_size=10)
        async with pipeline(settings, definition, TABLE) as receiver:
            await execute(
                settings,
                f"INSERT INTO items SELECT n, CASE n WHEN 9 THEN '{name}' ELSE 'good' END "
                "FROM generate_series(1, 40) n",
            )
            parked = [9] if name == "leaves another" else []
            await receiver.until(lambda: len(receiver.messages) == 40 - len(parked))
            await until_states(settings, *["failing"] * len(parked))
            ids = [m["record"]["id"] for m in receiver.messages]
            assert sorted(ids) == sorted({*range(1, 41)} - {*parked})
            reason = "the filter ended the process that called it"
            found = await fetch(settings, "SELECT reason FROM triggerkit.parked")
            assert found == [(reason,)] * len(parked)
        async with asyncio.timeout(10):
            while is_alive(int(forked.read_text())):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)

    asyncio.run(scenario())


def is_alive(pid: int) -> bool:
    """Whether a process has not ended; who has to take note of its end may not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_a_transform_that_ends_its_process_is_named(settings: Settings) -> None:
    async def scenario() -> None:
        async with pipeline(settings, changes("items", transform=difficult_to_make), TABLE):
            await execute(settings, "INSERT INTO items VALUES (1, 'ends')")
            await until_states(settings, "failing")
            reason = "the transform ended the process that called it"
            assert await fetch(settings, "SELECT reason FROM triggerkit.parked") == [(reason,)]

    asyncio.run(scenario())


def test_functions_that_compute_hold_up_no_other_consumer(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, TABLE)
            await declare(settings, receiver, changes("items", transform=slow), "slow")
            await declare(settings, receiver, changes("items", batch_size=10), "fast")
            async with streaming(settings, receiver):
                await execute(settings, "INSERT INTO items SELECT generate_series(1, 100), 'x'")
                await receiver.until(lambda: len(fast(receiver)) == 100)
                assert len(receiver.messages) - 100 < 90
                await execute(settings, "INSERT INTO items VALUES (0, 'last')")
                await receiver.until(lambda: bool(carrying(receiver, "last")))
                assert len(receiver.messages) - len(fast(receiver)) < 100

    def fast(receiver: Receiver) -> list[dict[str, Any]]:
        return [m for m in receiver.messages if "consumer" in m["metadata"]]

    asyncio.run(scenario())

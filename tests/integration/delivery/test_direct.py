"""Runs that the stream makes itself: what a task's code, its keys and Redis can do to it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.conformance import taking
from tests.conformance.ways import PROJECT, declare, made, names, streaming
from tests.integration.parked import TABLE, fetch, until, until_states
from tests.integration.pipeline import execute, run_until_canceled
from tests.receiver import Receiver
from triggerkit.consumers.calls.process import Process
from triggerkit.consumers.declare.editing import Editor
from triggerkit.consumers.definition import changes
from triggerkit.encryption import Keyring
from triggerkit.errors import ConfigurationError
from triggerkit.project import Project
from triggerkit.settings import Settings
from triggerkit.state.channels import notify_consumers
from triggerkit.state.connect import connect

COUNT = "SELECT coalesce(sum(coalesce(items, 1)), 0) FROM triggerkit.runs"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises", "a validator of its type raised RuntimeError"),
        ("ends", "the type of task take_batch ended the process that read it"),
        ("hangs", "the type of task take_batch took longer than 1 s"),
    ],
)
def test_a_message_at_which_the_type_fails_is_parked_and_the_others_go_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    monkeypatch.setattr("triggerkit.delivery.direct.task_code.READ_S", 1.0)

    async def scenario() -> None:
        await execute(settings, TABLE)
        await declare(settings, "direct", changes("items", batch_size=10))
        async with streaming(settings, "direct"):
            values = ", ".join(f"({n}, 'good')" for n in range(1, 30))
            await execute(settings, f"INSERT INTO items VALUES (0, '{name}'), {values}")
            await until_states(settings, "failing")
            await until(settings, COUNT, lambda rows: rows[0][0] == 29)
            [(parked,)] = await fetch(settings, "SELECT reason FROM triggerkit.parked")
        assert reason in parked
        ids = [m["record"]["id"] for run in await made(settings) for m in run.messages]
        assert sorted(ids) == list(range(1, 30))

    asyncio.run(scenario())


def test_a_consumer_waits_for_tasks_that_cannot_be_imported(
    settings: Settings, tmp_path: Path
) -> None:
    async def scenario() -> None:
        await execute(settings, TABLE)
        await declare(settings, "direct", changes("items", batch_size=10))
        module = tmp_path / "broken_tasks.py"
        module.write_text("import nothing_of_this_name\n")
        async with run_until_canceled(settings, Project(tmp_path, tasks=("broken_tasks",))):
            await execute(settings, "INSERT INTO items VALUES (1, 'a')")
            [(error,)] = await until(
                settings,
                "SELECT last_error FROM triggerkit.consumers",
                lambda rows: rows[0][0] is not None,
            )
            assert error.startswith("cannot run: broken_tasks cannot be imported")
            module.write_text("from tests.conformance.taking import *\n")
            async with await connect(settings.state_dsn, "test") as state:
                await notify_consumers(state)
            await until(settings, COUNT, lambda rows: rows[0][0] == 1)
            await until(
                settings,
                "SELECT last_error FROM triggerkit.consumers",
                lambda rows: rows[0][0] is None,
            )

    asyncio.run(scenario())


def test_a_task_that_is_not_there_is_named_with_those_that_are(settings: Settings) -> None:
    async def scenario() -> None:
        await execute(settings, TABLE)
        gone = changes("items", via="direct").model_copy(update={"task": "gone"})
        await declare(settings, "direct", gone, taking.take_batch)
        async with await connect(settings.state_dsn, "test") as state:
            await state.execute(
                'UPDATE triggerkit.consumers SET definition = definition || \'{"task": "gone"}\''
            )
        async with run_until_canceled(settings, PROJECT):
            [(error,)] = await until(
                settings,
                "SELECT last_error FROM triggerkit.consumers",
                lambda rows: rows[0][0] is not None,
            )
        assert error == (
            "cannot run: no task is named 'gone'; known tasks: take_batch, take_event, take_named, "
            "take_one"
        )

    asyncio.run(scenario())


def test_runs_whose_key_another_transaction_holds_are_made_once_it_ends(
    settings: Settings, short_waits: None
) -> None:
    async def scenario() -> None:
        await execute(settings, TABLE)
        await declare(settings, "direct", changes("items", batch_size=10), taking.take_one)
        held = 'take_one\x1frow/public.items:["1"]'
        async with (
            await connect(settings.state_dsn, "test") as holding,
            streaming(settings, "direct"),
        ):
            async with holding.transaction():
                await holding.execute(
                    "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [held]
                )
                await execute(settings, "INSERT INTO items VALUES (1, 'a')")
                [(error, status)] = await until(
                    settings,
                    "SELECT error, status FROM triggerkit.deliveries ORDER BY id LIMIT 1",
                    lambda rows: len(rows) == 1,
                )
                held_error = "another transaction holds a key of the runs"
                assert (status, error.split(";")[0]) == (503, held_error)
                assert await made(settings) == []
            await until(settings, COUNT, lambda rows: rows[0][0] == 1)
            await until_states(settings)
        assert await names(settings) == ["a"]

    asyncio.run(scenario())


def test_runs_are_made_while_redis_is_away(settings: Settings) -> None:
    async def scenario() -> None:
        await execute(settings, TABLE)
        await declare(settings, "direct", changes("items", batch_size=10))
        away = settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1")})
        async with streaming(away, "direct"):
            await execute(settings, "INSERT INTO items SELECT generate_series(1, 20), 'a'")
            await until(settings, COUNT, lambda rows: rows[0][0] == 20)

    asyncio.run(scenario())


def test_a_consumer_is_edited_from_one_way_to_the_other(settings: Settings) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, TABLE)
            async with (
                await connect(settings.source_dsn, "test") as source,
                await connect(settings.state_dsn, "test") as state,
            ):
                await state.execute(
                    "INSERT INTO triggerkit.endpoints (name, url, managed_by) "
                    "VALUES ('there', %s, 'api')",
                    [f"{receiver.url}/push"],
                )
                editor = Editor(source, state, Keyring([]), settings.public_url, "test")
                with pytest.raises(ConfigurationError, match="via='direct' needs the task"):
                    await editor.create("made", {"tables": ["items"], "via": "direct"})
                direct = {"via": "direct", "task": "take_batch"}
                await editor.create("made", {"tables": ["items"], **direct, "batch_size": 10})
                async with run_until_canceled(settings, PROJECT):
                    await rows_until(settings, receiver, wanted="run")
                    pushed = {"via": "webhook", "endpoint": "there"}
                    await editor.edit("made", pushed, may_lose=False)
                    await rows_until(settings, receiver, wanted="push")
                    await editor.edit("made", direct, may_lose=False)
                    last = await rows_until(settings, receiver, wanted="run")
        taken = [int(name or 0) for name in await names(settings)]
        taken += [m["record"]["id"] for m in receiver.messages]
        assert sorted(taken) == list(range(1, last + 1))

    asyncio.run(scenario())


async def rows_until(settings: Settings, receiver: Receiver, *, wanted: str) -> int:
    """Write one row after the other until one goes the `wanted` way, as the stream takes an edit in
    a moment after it was made; returns the last one's id."""
    while True:
        [(made_before,)] = await fetch(settings, COUNT)
        pushed_before = len(receiver.messages)
        row = made_before + pushed_before + 1
        await execute(settings, f"INSERT INTO items VALUES ({row}, '{row}')")

        def is_taken(rows: list[tuple[Any, ...]], row: int = row) -> bool:
            return bool(rows[0][0] + len(receiver.messages) == row)

        [(made_since,)] = await until(settings, COUNT, is_taken)
        if (made_since > made_before) == (wanted == "run"):
            return int(row)


def test_no_message_is_blamed_for_a_process_that_somebody_else_ended(settings: Settings) -> None:
    async def scenario() -> None:
        await execute(settings, TABLE)
        await declare(settings, "direct", changes("items"), taking.take_one)
        ended: list[int] = []
        start = Process.start

        async def noted(*given: str, **setting: Any) -> Process:
            process = await start(*given, **setting)
            ended.append(process.process.pid)
            return process

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Process, "start", noted)
            async with streaming(settings, "direct"):
                for number in (1, 2, 3):
                    await execute(settings, f"INSERT INTO items VALUES ({number}, 'good')")
                    of_all = f"SELECT ({COUNT}) = {number}"
                    await until(settings, of_all, lambda rows: bool(rows[0][0]))
                    os.kill(ended[-1], signal.SIGKILL)
        assert len(ended) == 3
        blamed = "SELECT error FROM triggerkit.deliveries WHERE error IS NOT NULL"
        assert await fetch(settings, blamed) == []

    asyncio.run(scenario())

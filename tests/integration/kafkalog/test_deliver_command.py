"""The command `deliver`: how it begins, stands by and ends, and where it is refused."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from starlette.responses import JSONResponse, Response

from tests.acceptance.project import run_command
from tests.command_process import CommandProcess
from tests.integration.kafkalog.delivering import with_log_on_kafka
from tests.integration.kafkalog.test_delivery import PATIENCE_S, TABLE, versions
from tests.integration.pipeline import declare, execute, run_until_canceled
from tests.kafka import KafkaServer
from tests.offered import environment_on_kafka
from tests.ports import free_port
from tests.receiver import Received, Receiver
from triggerkit import changes
from triggerkit.log.entry import PARTITIONS
from triggerkit.settings import Settings
from triggerkit.supervisor.deliver import run_deliver
from triggerkit.supervisor.probes.process_health import ProcessHealth


def deliver(folder: Path, settings: Settings, name: str = "deliver") -> CommandProcess:
    """The command as a process."""
    given = environment_on_kafka(settings)
    return CommandProcess(folder, name, ["triggerkit", "deliver"], given, free_port())


async def until_ready(process: CommandProcess) -> str:
    """Wait until it takes work; its role."""
    found = await asyncio.to_thread(process.until_ready, PATIENCE_S)
    return str(found["role"])


def test_it_waits_for_apply_and_ends_what_is_under_way_when_it_is_asked_to_end(
    settings: Settings, kafka_server: KafkaServer, tmp_path: Path
) -> None:
    kafka = with_log_on_kafka(settings, kafka_server)

    async def slow(_: Received) -> Response:
        await asyncio.sleep(1.0)
        return JSONResponse({})

    async def scenario() -> None:
        async with Receiver.start(slow) as receiver, AsyncExitStack() as stack:
            pushed_to = kafka.model_copy(update={"triggerkit_public_url": receiver.url})
            await execute(kafka, *TABLE)
            process = stack.enter_context(deliver(tmp_path, pushed_to))
            await asyncio.to_thread(process.until_said, "waiting for: triggerkit apply")
            assert process.probe("/readyz")[1]["missing"] == ["startup", "triggerkit apply"]
            await declare(kafka, receiver, changes("items", batch_size=1))
            await stack.enter_async_context(run_until_canceled(pushed_to))
            assert await until_ready(process) == "active"
            await execute(kafka, "INSERT INTO items SELECT i, 0 FROM generate_series(1, 30) i")
            await receiver.until(lambda: len(receiver.messages) >= 1, PATIENCE_S)
            process.terminate()
            assert await asyncio.to_thread(process.wait) == 0, process.said()
            begun = len(receiver.messages)
            assert begun < 30, "it begins nothing more"
            with deliver(tmp_path, pushed_to, "again") as again:
                await until_ready(again)
                await receiver.until(lambda: len(versions(receiver)) == 30, PATIENCE_S)
            assert len(receiver.messages) == 30, "what was under way is not sent again"

    asyncio.run(scenario())


def test_one_more_than_there_are_partitions_is_ready_and_stands_by(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    kafka = with_log_on_kafka(settings, kafka_server)
    healths = [ProcessHealth() for _ in range(PARTITIONS + 1)]

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(kafka, *TABLE)
            await declare(kafka, receiver, changes("items"))
        told: list[int] = []
        members = [
            asyncio.create_task(run_deliver(kafka, lambda: told.append(1), None, health))
            for health in healths
        ]
        wanted = [*["active"] * PARTITIONS, "standby"]
        async with asyncio.timeout(PATIENCE_S):
            while sorted(health.role or "" for health in healths) != wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert not any(health.missing() for health in healths)
        assert len(told) == len(members), "each says once that it is ready"
        for member in members:
            member.cancel()
        await asyncio.wait(members)

    asyncio.run(scenario())


def test_it_is_refused_where_the_stream_delivers(settings: Settings, tmp_path: Path) -> None:
    refused = run_command(tmp_path, "triggerkit", "deliver", settings=settings.environment())
    assert refused.returncode == 2
    assert "error: the log is in Postgres, and the stream delivers from it; run: triggerkit " in (
        " ".join(refused.stderr.split())
    )
    on_kafka = {**settings.environment(), "TRIGGERKIT_LOG": "kafka"}
    refused = run_command(tmp_path, "triggerkit", "deliver", settings=on_kafka)
    assert refused.returncode == 2
    assert "the log on Kafka is not offered by this release" in " ".join(refused.stderr.split())


def test_it_needs_the_settings_of_kafka(settings: Settings, tmp_path: Path) -> None:
    given = environment_on_kafka(settings)
    refused = run_command(tmp_path, "triggerkit", "deliver", settings=given)
    assert refused.returncode == 2
    assert "KAFKA_BOOTSTRAP_SERVERS is not set; set it" in " ".join(refused.stderr.split())

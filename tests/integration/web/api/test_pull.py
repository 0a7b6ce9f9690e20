"""The pull API over real HTTP: answers, limits, and a `serve` that is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.consumers.pull.pulling import pulling
from tests.integration.serve_process import serve_process
from tests.integration.serving import serving
from tests.integration.web.api.pulled import call, post, pulled_site
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings
from triggerkit.web.api import pull as pull_module
from triggerkit.web.application import Application


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}])
def test_without_the_key_nothing_is_answered(keyed: Settings, headers: dict[str, str]) -> None:
    with serving(Application(keyed, [], None)) as site:
        for operation in ("receive", "ack", "nack", "extend"):
            answer = site.request("POST", f"/api/v1/consumers/items/{operation}", b"{}", headers)
            assert answer.status == 401
            assert answer.json == {"error": "Unauthorized"}


def test_without_a_key_in_the_settings_nobody_is_let_in(settings: Settings) -> None:
    with serving(Application(settings, [], None)) as site:
        assert post(site, "receive", {}).status == 401
        assert post(site, "receive", {}, authorization="Bearer ").status == 401


def test_messages_are_received_acknowledged_handed_back_and_held_on_to(keyed: Settings) -> None:
    async def scenario() -> None:
        async with pulled_site(keyed) as (pull, site):
            await pull.log([1, 2, 3])
            data = (await call(site, "receive", batch_size=10))["data"]
            assert sorted(message["record"]["id"] for message in data) == [1, 2, 3]
            assert list(data[0]) == ["ack_id", "record", "changes", "action", "metadata"]
            first, *others = [message["ack_id"] for message in data]
            assert await call(site, "extend", ack_ids=[first], seconds=60) == {"success": True}
            assert await call(site, "nack", ack_ids=[first], delay="0s") == {"success": True}
            assert await call(site, "ack", ack_ids=others) == {"success": True}
            again = (await call(site, "receive"))["data"]
            assert again[0]["metadata"] == data[0]["metadata"]
            stale = [first, "nonsense", "0.x.1", "9.aaaaaaaaaaaaaaaa.1", ""]
            told = await call(site, "ack", ack_ids=[again[0]["ack_id"], *stale])
            assert told["success"] is True
            assert sorted(told["stale"]) == sorted(stale)

    asyncio.run(scenario())


def test_what_does_not_fit_is_told_by_its_path(keyed: Settings) -> None:
    async def scenario() -> None:
        async with pulled_site(keyed) as (_, site):
            for operation, body, path in (
                ("receive", {"batch_size": 0}, ["batch_size"]),
                ("receive", {"batch_size": 1001}, ["batch_size"]),
                ("receive", {"wait_for": "5 minutes"}, ["wait_for"]),
                ("receive", {"wait_for": "301s"}, ["wait_for"]),
                ("receive", {"wait_for": True}, ["wait_for"]),
                ("receive", {"batchsize": 1}, ["batchsize"]),
                ("ack", {}, ["ack_ids"]),
                ("ack", {"ack_ids": [1]}, ["ack_ids", 0]),
                ("nack", {"ack_ids": ["a"], "delay": -1}, ["delay"]),
                ("extend", {"ack_ids": ["a"], "seconds": 0}, ["seconds"]),
            ):
                answer = post(site, operation, body)
                assert answer.status == 422, (operation, body)
                assert [problem["loc"] for problem in answer.json["detail"]] == [path]
            assert post(site, "receive", b"{").status == 400
            assert post(site, "ack", b"x" * (pull_module.MAX_BODY_BYTES + 1)).status == 413

    asyncio.run(scenario())


def test_consumers_that_are_not_there_or_not_pulled_are_told(keyed: Settings) -> None:
    async def scenario() -> None:
        async with pulled_site(keyed) as (pull, site):
            unknown = post(site, "receive", {}, name="nobody")
            assert unknown.status == 404
            assert "known consumers: items" in unknown.json["error"]
            await pull.execute("UPDATE triggerkit.consumers SET state = 'paused'")
            assert post(site, "receive", {}).status == 409
            await pull.execute(
                "WITH e AS (INSERT INTO triggerkit.endpoints (name, url) VALUES ('e', 'http://e') "
                "RETURNING id) UPDATE triggerkit.consumers SET endpoint_id = (SELECT id FROM e)"
            )
            for operation, body in (("receive", {}), ("ack", {"ack_ids": ["a"]})):
                answer = post(site, operation, body)
                assert answer.status == 409
                assert "is pushed to an endpoint" in answer.json["error"]

    asyncio.run(scenario())


def test_what_a_killed_serve_handed_out_comes_again_from_another(
    keyed: Settings, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with pulling(keyed.state_dsn, changes("items", timeout_s=2)) as pull:
            await pull.log(range(1, 51))
            with serve_process(keyed, tmp_path) as (site, pid):
                first = (await call(site, "receive", batch_size=100))["data"]
                assert len(first) == 50
                os.kill(pid, signal.SIGKILL)
            with serve_process(keyed, tmp_path) as (site, _):
                again: list[Any] = []
                async with asyncio.timeout(30):
                    while len(again) < 50:
                        found = await call(site, "receive", batch_size=100, wait_for="10s")
                        again += found["data"]
                        await call(site, "ack", ack_ids=[m["ack_id"] for m in found["data"]])

                def keys(messages: list[Any]) -> list[str]:
                    return sorted(m["metadata"]["idempotency_key"] for m in messages)

                assert keys(again) == keys(first)
                assert await call(site, "receive") == {"data": []}

    asyncio.run(scenario())


def test_lost_connections_are_told_and_made_again(keyed: Settings) -> None:
    async def scenario() -> None:
        async with pulled_site(keyed) as (pull, site):
            await call(site, "receive")
            with psycopg.connect(pull.url, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND application_name = 'triggerkit pull'"
                )
            answer = post(site, "receive", {})
            assert answer.status == 503
            assert answer.headers["retry-after"] == "1"
            assert "state database" in answer.json["error"]
            await call(site, "receive")

    asyncio.run(scenario())

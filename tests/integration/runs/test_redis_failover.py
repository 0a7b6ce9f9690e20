"""A Redis that became a replica: what is behind its address now gets the runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import redis

from tests.faults.rig.proxy import Proxy
from triggerkit.embedded.redis import EmbeddedRedis
from triggerkit.runs.run import ReadyRun, new_run_id
from triggerkit.runs.transport.redis import AsyncRedisTransport, RedisTransport, task_key


def socket_of(server: EmbeddedRedis) -> Path:
    return Path(unquote(server.url.removeprefix("unix://")))


def test_runs_reach_the_new_primary_after_a_failover(tmp_path: Path) -> None:
    runs = [ReadyRun("work", new_run_id(), rank) for rank in range(4)]

    async def scenario() -> list[Any]:
        old, new = (EmbeddedRedis(tmp_path / name) for name in ("old", "new"))
        await old.start()
        await new.start()
        async with Proxy.before(socket_of(old)) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}/0"
            portal, worker = AsyncRedisTransport(url, "test"), RedisTransport(url, "test")
            try:
                assert await portal.push(runs[:1])
                assert await asyncio.to_thread(worker.push, runs[:1])
                source = worker.source(["work"])
                assert await asyncio.to_thread(source.take, 1.0) is not None
                with redis.Redis.from_url(old.url) as server:
                    server.execute_command("REPLICAOF", "127.0.0.1", "1")
                proxy.lead_to(socket_of(new))
                assert await portal.push(runs[1:2])
                assert await asyncio.to_thread(worker.push, runs[2:])
                taken = await asyncio.to_thread(source.take, 5.0)
                assert taken is not None
                with redis.Redis.from_url(new.url, decode_responses=True) as server:
                    rest: Any = server.zrange(task_key("test", "work"), 0, -1)
                return [*taken.ids, *rest]
            finally:
                await portal.close()
                worker.close()
                await new.stop()
                await old.stop()

    assert asyncio.run(scenario()) == [run.id for run in runs[1:]]

"""Valkey carries the runs as Redis does; so does Redis over TLS, and for a user of least rights."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests import ROOT
from tests.certificates import Authority
from tests.redis_server import redis_server, require_redis, require_valkey
from tests.servers import Servers
from triggerkit.runs.run import ReadyRun, new_run_id
from triggerkit.runs.transport.base import Room
from triggerkit.runs.transport.redis import AsyncRedisTransport, RedisTransport
from triggerkit.runs.transport.redis_rights import RULES

GUIDE = (ROOT / "docs" / "deploy.md").read_text()

KINDS = pytest.mark.parametrize("program", [require_redis, require_valkey], ids=["redis", "valkey"])


def carry(url: str) -> None:
    """Have runs go every way that they go, and end up where they are to."""
    runs = [ReadyRun(task, new_run_id(), rank) for task in ("one", "two") for rank in range(4)]

    async def push() -> bool:
        portal = AsyncRedisTransport(url, "test")
        try:
            await portal.check()
            return await portal.push(runs[4:])
        finally:
            await portal.close()

    transport = RedisTransport(url, "test")
    source = transport.source(["one", "two"])
    try:
        assert transport.push(runs[:4])
        assert asyncio.run(push())
        assert transport.first_ranks(["one", "two", "three"])["two"] == 0
        taken = source.take(1.0)
        assert taken is not None
        found = {*taken.ids, *source.more(1)}
        for other in source.others(Room(4, 10, lambda _: 2)):
            found |= set(other.ids)
        while (taken := source.take(0.05)) is not None:
            found |= set(taken.ids)
        assert found == {run.id for run in runs}
        wake = threading.Timer(0.1, source.wake)
        wake.start()
        assert source.take(5.0) is None
        wake.join()
    finally:
        source.close()
        transport.close()


@KINDS
def test_runs_are_carried(servers: Servers, tmp_path: Path, program: Callable[[], Path]) -> None:
    with redis_server(servers, tmp_path, program()) as port:
        carry(f"redis://127.0.0.1:{port}/0")


@KINDS
def test_a_user_of_least_rights_carries_runs(
    servers: Servers, tmp_path: Path, program: Callable[[], Path]
) -> None:
    (line,) = re.findall(r"^ACL SETUSER .*$", GUIDE, re.MULTILINE)
    assert line.endswith(f" {RULES}")
    with redis_server(servers, tmp_path, program()) as port:
        with redis.Redis(port=port) as admin:
            admin.execute_command(*line.split())
        url = f"redis://triggerkit:PASSWORD@127.0.0.1:{port}/1"
        carry(url)
        with redis.Redis.from_url(url) as client:
            for words in (["SET", "triggerkit:x", "1"], ["ZADD", "other", "1", "x"], ["KEYS", "*"]):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.execute_command(*words)


def test_runs_are_carried_over_tls_that_is_verified(servers: Servers, tmp_path: Path) -> None:
    authority = Authority.make(tmp_path, "authority")
    pair = authority.sign(tmp_path, "localhost")
    lines = ["port 0", "tls-port {port}", f"tls-cert-file {pair}", f"tls-key-file {pair}"]
    lines += [f"tls-ca-cert-file {authority.file}", "tls-auth-clients no"]
    with redis_server(servers, tmp_path, require_redis(), *lines) as port:
        carry(f"rediss://localhost:{port}/0?ssl_ca_certs={authority.file}")

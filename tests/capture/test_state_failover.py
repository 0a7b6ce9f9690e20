"""A pool whose address led to a standby for a while: it goes to the primary that is there now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.capture.rig.source import Source
from tests.faults.rig.proxy import Proxy
from tests.servers import Servers
from triggerkit.state.connect import pool

SIZE = 4


def socket_of(url: str) -> Path:
    parts = conninfo_to_dict(url)
    return Path(str(parts["host"])) / f".s.PGSQL.{parts.get('port', 5432)}"


@pytest.fixture
def primary(source: Source, servers: Servers) -> Iterator[Path]:
    """The socket of another server, which has the database and the table of `source`."""
    source.execute("CREATE TABLE written (id int)")
    with psycopg.connect(servers.postgres.url, dbname="postgres", autocommit=True) as connection:
        connection.execute("CREATE TABLE public.written (id int)")
        yield socket_of(servers.postgres.url)
        connection.execute("DROP TABLE public.written")


def test_a_pool_leaves_a_server_that_takes_no_writes(source: Source, primary: Path) -> None:
    async def scenario() -> int:
        async with (
            Proxy.before(socket_of(source.url)) as proxy,
            pool(proxy.dsn(source.url), "test", size=SIZE) as states,
        ):
            for connection in [await states.getconn() for _ in range(SIZE)]:
                await states.putconn(connection)
            # The connections there are stay with the standby.
            proxy.lead_to(primary)
            failures = 0
            for number in range(2 * SIZE):
                try:
                    async with states.connection() as connection:
                        await connection.execute("INSERT INTO public.written VALUES (%s)", [number])
                except psycopg.errors.ReadOnlySqlTransaction:
                    failures += 1
            return failures

    source.close()
    source.server.stand_by()
    try:
        assert asyncio.run(scenario()) == 1
    finally:
        source.server.take_over()
        source.reconnect()

"""A connection that leads to the wrong place: a pooler, or a URL that is another library's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from triggerkit.errors import CannotConnect, ConfigurationError
from triggerkit.settings import Settings
from triggerkit.state.connect import pinned
from triggerkit.supervisor.checks import Check, run_checks

#: How the message begins in which the server tells the process that serves the connection.
KEY_DATA = b"K\0\0\0"


@asynccontextmanager
async def pooler(dsn: str) -> AsyncIterator[str]:
    """A server in between that tells clients of a process of its own, as poolers do."""
    parts = conninfo_to_dict(dsn)
    socket = Path(str(parts["host"])) / f".s.PGSQL.{parts.get('port', 5432)}"

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_server: bool
    ) -> None:
        while data := await reader.read(65536):
            at = data.find(KEY_DATA) if from_server else -1
            if at >= 0:
                from_server = False
                data = data[: at + 5] + b"\0\0\0\1" + data[at + 9 :]
            writer.write(data)
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_unix_connection(str(socket))
        await asyncio.gather(
            pump(reader, to_writer, from_server=False),
            pump(to_reader, writer, from_server=True),
            return_exceptions=True,
        )

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield make_conninfo(dsn, host="127.0.0.1", port=port, sslmode="disable")
    finally:
        server.close()


def test_a_pooler_is_named(settings: Settings) -> None:
    async def scenario() -> list[Check]:
        async with pooler(settings.source_dsn) as dsn:
            through = settings.model_copy(
                update={
                    "database_url": SecretStr(dsn),
                    "triggerkit_state_url": settings.database_url,
                }
            )
            return await run_checks(through, [])

    (check,) = [c for c in asyncio.run(scenario()) if c.name == "direct connection"]
    assert check.failed
    assert "pooler" in check.detail
    assert (check.remedy or "").startswith("set DATABASE_URL to the server's own address")
    assert not any(c.name == "direct connection" for c in asyncio.run(run_checks(settings, [])))


def test_a_pooler_that_refuses_what_it_does_not_pass_on_is_named(settings: Settings) -> None:
    refusal = b"SFATAL\0C08P01\0Munsupported startup parameter in options: statement_timeout\0\0"

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8192)
        writer.write(b"E" + (len(refusal) + 4).to_bytes(4, "big") + refusal)
        writer.close()

    async def scenario() -> None:
        async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            dsn = f"postgresql://shop:hunter2@127.0.0.1:{port}/shop?sslmode=disable"
            update = {"database_url": SecretStr(dsn)}
            with pytest.raises(CannotConnect) as told:
                await run_checks(settings.model_copy(update=update), [])
            assert "a pooler answers there; set the URL to the server's own" in str(told.value)
            assert "hunter2" not in str(told.value)

    asyncio.run(scenario())


@pytest.mark.parametrize("parameter", ["schema=public", "pgbouncer=true", "currentSchema=x"])
def test_a_parameter_of_another_library_is_named(parameter: str) -> None:
    url = f"postgresql://shop:hunter2@127.0.0.1/shop?sslmode=disable&{parameter}"
    with pytest.raises(ConfigurationError) as told:
        pinned(url, "test")
    assert f"has the parameter {parameter.partition('=')[0]}" in str(told.value)
    assert "leave it out" in str(told.value)
    assert "hunter2" not in str(told.value)

"""A line to Postgres that drops packets without a word is noticed by both of its ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.faults.machines.data import DataMachine
from tests.faults.machines.network import CannotMakeMachines, Network, between
from triggerkit.state.connect import connect

#: Seconds within which it is noticed. Half a minute is what it takes where the other end goes on
#: sending what it has no answer to: until that gives up, it seems to be alive.
NOTICED_S = 40.0

_LEFT = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'cut %'"


@pytest.fixture
def network() -> Iterator[Network]:
    network = Network(delay_s=0.001, loss=0.0)
    try:
        network.make({"client": 1, "data": 3})
    except CannotMakeMachines as error:
        pytest.skip(str(error))
    yield network
    network.remove()


@pytest.fixture
def data(tmp_path: Path, network: Network) -> Iterator[DataMachine]:
    data = DataMachine(tmp_path, network.machines["data"], network.subnet)
    yield data
    data.close()


@pytest.mark.parametrize("drops_answers", [False, True], ids=["what is sent", "answers"])
def test_who_waits_is_told_and_locks_are_released(
    network: Network, data: DataMachine, drops_answers: bool
) -> None:
    client = network.machines["client"]
    url = data.settings()["TRIGGERKIT_STATE_URL"]

    async def scenario() -> list[object]:
        asking = await connect(url, "cut while it asks")
        hearing = await connect(url, "cut while it hears")
        await asking.execute("BEGIN")
        network.cut(
            between([client.address], [data.state], there=not drops_answers, back=drops_answers)
        )
        async with asyncio.timeout(NOTICED_S):
            return list(
                await asyncio.gather(
                    asking.execute("SELECT 1"), _hear(hearing), return_exceptions=True
                )
            )

    with client.entered():
        began = time.monotonic()
        errors = asyncio.run(scenario())
    assert [type(error) for error in errors] == [psycopg.OperationalError] * 2, errors
    with psycopg.connect(data.servers.postgres.url, autocommit=True) as connection:
        while connection.execute(_LEFT).fetchone() != (0,):
            assert time.monotonic() - began < 2 * NOTICED_S, "the server has not noticed"
            time.sleep(0.2)


async def _hear(connection: psycopg.AsyncConnection) -> None:
    async for _ in connection.notifies():
        pass

"""What a log on Kafka has not is refused by name, and nothing is changed."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from tests.integration.pipeline import execute
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declarations, Declared
from triggerkit.consumers.definition import ConsumerDefinition, changes, rows
from triggerkit.errors import ConfigurationError
from triggerkit.events.declaration import read_events
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

FULL = "ALTER TABLE public.items REPLICA IDENTITY FULL"
TABLE = "CREATE TABLE items (id bigint PRIMARY KEY, team text)"


async def applied(
    settings: Settings, definition: ConsumerDefinition, path: str | None = "/push", **more: Any
) -> list[str]:
    declarations = Declarations(
        [Declared("orders", definition, path)], is_log_on_kafka=True, **more
    )
    async with (
        await connect(settings.source_dsn, "test") as source,
        await connect(settings.state_dsn, "test") as state,
    ):
        return await apply(source, state, declarations, "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("definition", "more", "told"),
    [
        (changes("items", group_by=["team"]), {}, r"orders has group_by, .* leave group_by out"),
        (changes("items", body="event"), {}, r"orders has body='event'.* previous versions"),
        (changes("items"), {"path": None}, r"orders is pulled, .* name an endpoint"),
        (rows("items"), {"events": read_events({"tables": ["items"]})}, r"\[events\] .* leave it"),
    ],
    ids=["another order", "events", "pulled", "topics"],
)
def test_what_is_declared_is_refused_by_its_name(
    settings: Settings, definition: ConsumerDefinition, more: dict[str, Any], told: str
) -> None:
    async def scenario() -> None:
        await execute(settings, TABLE, FULL)
        with pytest.raises(ConfigurationError, match=f"TRIGGERKIT_LOG is kafka: {told}"):
            await applied(settings, definition, **more)

    asyncio.run(scenario())
    with psycopg.connect(settings.state_dsn) as connection:
        assert connection.execute("SELECT count(*) FROM triggerkit.consumers").fetchone() == (0,)


def test_a_table_whose_updates_leave_values_out_is_refused_with_the_sql_that_mends_it(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        await execute(settings, TABLE)
        with pytest.raises(
            ConfigurationError, match=r"updates of public\.items .* it needs: "
        ) as e:
            await applied(settings, changes("items"))
        mended = str(e.value).rpartition("it needs: ")[2]
        await execute(settings, mended)
        assert "created consumer orders" in await applied(settings, changes("items"))

    asyncio.run(scenario())

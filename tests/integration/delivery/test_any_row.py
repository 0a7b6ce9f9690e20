"""Any row that Postgres stores, through every option of a consumer: it is delivered or parked."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from tests.integration.delivery.called import leaves, never_bad, short
from tests.integration.parked import fetch
from tests.integration.pipeline import execute, streaming
from tests.receiver import Receiver
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.definition import ConsumerDefinition, changes
from triggerkit.consumers.pull.consumers import in_order
from triggerkit.consumers.pull.service import Puller
from triggerkit.log.entry import PARTITIONS, partition_of
from triggerkit.settings import Settings
from triggerkit.state.connect import connect, pool

TYPES = (
    "json",
    "jsonb",
    "text",
    "numeric",
    "float8",
    "timestamptz",
    "interval",
    "text[]",
    "json[]",
)

TABLE = "CREATE TABLE items (id serial PRIMARY KEY, {})".format(
    ", ".join(f"c{n} {type_}" for n, type_ in enumerate(TYPES))
)

_text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=40)

_json_text = st.lists(
    st.sampled_from([r"\ud800", r"\udfff", r"\"", r"\\", r"\/", "é", "a", " ", "{", "}", ",", ":"])
).map(lambda parts: '"{}"'.format("".join(parts)))

_json_number = st.sampled_from(["0", "-0", "1e400", "-1E-400", "1" * 400, "0." + "1" * 400, "7"])

_json = st.recursive(
    _json_text | _json_number | st.sampled_from(["null", "true", " [ ] ", "{}"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: "[{}]".format("\t,\n".join(values)))
        | st.lists(st.tuples(_json_text, inner), max_size=3).map(
            lambda members: "{{{}}}".format(",".join(f"{name}:{v}" for name, v in members))
        )
        | st.tuples(st.sampled_from([200, 300, 1000, 2000]), inner).map(
            lambda nested: "[" * nested[0] + nested[1] + "]" * nested[0]
        )
    ),
    max_leaves=6,
)

_number = st.sampled_from(["NaN", "Infinity", "-0", "1e300", "0.1"]) | st.decimals(
    allow_nan=False, allow_infinity=False
).map(str)

_time = st.sampled_from(
    ["infinity", "-infinity", "0044-03-15 BC", "12000-01-01", "2026-01-02 03:04:05.6+02"]
)

_row = st.tuples(
    _json,
    _json,
    _text,
    _number,
    _number,
    _time,
    st.sampled_from(["1 mon -3 days", "P1Y2M3DT4H5M6.7S", "-178000000 years"]),
    st.lists(_text | st.none(), max_size=3),
    st.lists(_json, max_size=2),
)


#: A consumer for each option, and one that is pulled for most of them.
CONSUMERS: dict[str, ConsumerDefinition] = {
    "plain": changes("items"),
    "batches": changes("items", batch_size=20),
    "group": changes("items", group_by=["c0", "c4"]),
    "changed": changes("items", when_changed=["c0", "c2"]),
    "actions": changes("items", actions=["insert"]),
    "number": changes("items", filters=[("c3", "not_null"), ("id", ">", 0)]),
    "filter": changes("items", filter=never_bad),
    "leaves": changes("items", filter=leaves),
    "transform": changes("items", transform=short),
    "skips": changes("items", transform=short, max_attempts=1, on_exhausted="skip"),
}


@example([(r'"\ud800"', '"1e400"', "", "NaN", "NaN", "infinity", "1 mon", [None], [r'"\ud800"'])])
@example([("1e400", "1e400", "é", "0", "0", "-infinity", "1 mon", [], ["[" * 999 + "]" * 999])])
@given(st.lists(_row, min_size=10, max_size=40))
@limits(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(240)  # eight processes of functions are started for each example
def test_any_row_passes_every_option_and_those_behind_it_do_too(
    settings: Settings, rows: list[tuple[Any, ...]]
) -> None:
    asyncio.run(_scenario(settings, rows))


async def _scenario(settings: Settings, rows: list[tuple[Any, ...]]) -> None:
    async with Receiver.start() as receiver:
        await _make(settings, receiver)
        async with streaming(settings, receiver):
            await _write(settings, rows)
            ends = await _write_ends(settings)
            wanted = {(name, end) for name in CONSUMERS for end in ends}
            await receiver.until(lambda: wanted <= _arrived(receiver, ends), 60)
        assert await _pulled(settings, ends) == {(f"{name}_p", e) for name, e in wanted}
    assert (
        await fetch(settings, "SELECT name FROM triggerkit.consumers WHERE state <> 'active'") == []
    )


async def _make(settings: Settings, receiver: Receiver) -> None:
    async with await connect(settings.source_dsn, "test") as source:
        cursor = await source.execute("SELECT to_regclass('public.items') IS NULL")
        is_new = (await cursor.fetchone()) == (True,)
    if is_new:
        await execute(settings, TABLE, "ALTER TABLE items REPLICA IDENTITY FULL")
    declared = [
        Declared(f"{name}{suffix}", definition, "/push")
        for name, definition in CONSUMERS.items()
        for suffix in ("", "_p")
    ]
    async with (
        await connect(settings.source_dsn, "test") as source,
        await connect(settings.state_dsn, "test") as state,
    ):
        await apply(source, state, declared, receiver.url)
        await state.execute(
            "UPDATE triggerkit.consumers SET endpoint_id = NULL WHERE name LIKE '%\\_p'"
        )


async def _write(settings: Settings, rows: list[tuple[Any, ...]]) -> None:
    """Insert what Postgres takes of `rows`, and update it."""
    places = ", ".join(f"%s::{type_}" for type_ in TYPES)
    async with await connect(settings.source_dsn, "test") as source:
        for row in rows:
            try:
                await source.execute(f"INSERT INTO public.items VALUES (DEFAULT, {places})", row)
            except psycopg.DataError:
                await source.execute(
                    f"INSERT INTO public.items VALUES (DEFAULT, {places})", [row[0], None, *row[2:]]
                )
        await source.execute("UPDATE public.items SET c2 = c2 || '!' WHERE c2 <> 'the end'")


async def _write_ends(settings: Settings) -> list[str]:
    """Insert a row that every consumer delivers into each partition; returns how they are known."""
    async with await connect(settings.source_dsn, "test") as source:
        cursor = await source.execute("SELECT last_value FROM public.items_id_seq")
        row = await cursor.fetchone()
        assert row is not None
        ids: dict[int, int] = {}
        candidate = row[0]
        while len(ids) < PARTITIONS:
            candidate += 1
            ids.setdefault(partition_of("public", "items", f'["{candidate}"]'), candidate)
        for id_ in ids.values():
            await source.execute(
                "INSERT INTO public.items (id, c0, c2, c3) VALUES (%s, %s, 'the end', 1)",
                [id_, f'"end {id_}"'],
            )
        await source.execute("SELECT setval('public.items_id_seq', %s)", [candidate])
    return [f"end {id_}" for id_ in ids.values()]


def _arrived(receiver: Receiver, ends: list[str]) -> set[tuple[str, str]]:
    """Return the consumers and ends of what was pushed, by bytes that need no parser."""
    found = set()
    for received in receiver.requests:
        for end in ends:
            if f'"{end}"'.encode() not in received.body:
                continue
            names = (n for n in CONSUMERS if f'"name":"{n}"'.encode() in received.body)
            found |= {(name, end) for name in names}
    return found


async def _pulled(settings: Settings, ends: list[str]) -> set[tuple[str, str]]:
    found = set()
    async with pool(in_order(settings.state_dsn), "test", size=2) as connections:
        puller = Puller(connections)
        try:
            for name in CONSUMERS:
                while (received := await puller.receive(f"{name}_p", 50)).messages:
                    found |= {
                        (f"{name}_p", end)
                        for end in ends
                        if any(f'"{end}"'.encode() in m for m in received.messages)
                    }
                    ack_ids = [m.split(b'"')[3].decode() for m in received.messages]
                    assert await puller.ack(f"{name}_p", ack_ids) == []
        finally:
            await puller.close()
    return found

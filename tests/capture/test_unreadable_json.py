"""JSON that the server takes and a parser does not stops no consumer, whatever its options."""

from __future__ import annotations

import asyncio

from tests.capture.rig.project import project
from tests.capture.rig.source import Source
from tests.integration.delivery.called import leaves, never_bad, short
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Receiver
from triggerkit.consumers.definition import ConsumerDefinition, changes, rows
from triggerkit.log.entry import PARTITIONS, partition_of
from triggerkit.state.connect import connect
from triggerkit.state.migrate import migrate

UNREADABLE = (
    '"\\ud800"',
    "1e400",
    "[" * 1000 + "]" * 1000,
    '{"a": 1, "a": "\\udfff"}',
    "1" * 5000,
)

CONSUMERS: dict[str, ConsumerDefinition] = {
    "plain": changes("items", batch_size=20),
    "existing": rows("items", batch_size=20),
    "group": changes("items", group_by=["c0"], batch_size=20),
    "changed": changes("items", when_changed=["c0", "note"]),
    "actions": changes("items", actions=["insert"]),
    "filters": changes("items", filters=[("note", "!=", "x")]),
    "filter": changes("items", filter=never_bad),
    "leaves": changes("items", filter=leaves),
    "transform": changes("items", transform=short),
}


def test_rows_that_no_parser_reads_stop_no_consumer(
    source: Source, database_url: str, redis_url: str
) -> None:
    settings = project(source, database_url, redis_url)
    # A large value that an update leaves alone stands beside them.
    table = "CREATE TABLE items (id int PRIMARY KEY, c0 json, c2 text, note text, big text)"
    ends = _one_row_of_each_partition()

    async def scenario() -> None:
        async with await connect(settings.state_dsn, "test") as state:
            await migrate(state)
        async with Receiver.start() as receiver:
            await execute(settings, table, "ALTER TABLE items ALTER big SET STORAGE EXTERNAL")
            await execute(settings, *map(_insert, range(100, 100 + len(UNREADABLE))))
            for name, definition in CONSUMERS.items():
                await declare(settings, receiver, definition, name)
            async with streaming(settings, receiver):
                await execute(
                    settings,
                    *map(_insert, range(len(UNREADABLE))),
                    "UPDATE items SET note = 'n'",
                    "ALTER TABLE items REPLICA IDENTITY FULL",
                    "UPDATE items SET note = 'm'",
                    "UPDATE items SET id = id + 1000",
                    "DELETE FROM items",
                    *(
                        f"INSERT INTO items VALUES ({end}, '\"end {end}\"', 'the end', 'n', '')"
                        for end in ends
                    ),
                )
                wanted = {(name, end) for name in CONSUMERS for end in ends}
                await receiver.until(lambda: wanted <= _arrived(receiver, ends), 60)

    asyncio.run(scenario())


def _insert(number: int) -> str:
    value = UNREADABLE[number % len(UNREADABLE)]
    return f"INSERT INTO items VALUES ({number}, '{value}', 'c', 'x', repeat('y', 9000))"


def _one_row_of_each_partition() -> list[int]:
    found: dict[int, int] = {}
    candidate = 5000
    while len(found) < PARTITIONS:
        candidate += 1
        found.setdefault(partition_of("public", "items", f'["{candidate}"]'), candidate)
    return list(found.values())


def _arrived(receiver: Receiver, ends: list[int]) -> set[tuple[str, int]]:
    """The consumers and ends of what was pushed, by bytes that need no parser."""
    return {
        (name, end)
        for received in receiver.requests
        for end in ends
        if f'"end {end}"'.encode() in received.body
        for name in CONSUMERS
        if f'"name":"{name}"'.encode() in received.body
    }

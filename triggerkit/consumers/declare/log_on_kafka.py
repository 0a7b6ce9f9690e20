"""Refuse by name what a log on Kafka has not, before anything is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import psycopg

from triggerkit.configuration.table_name import table_text
from triggerkit.consumers.declare.declaration import Declarations, Declared
from triggerkit.errors import ConfigurationError
from triggerkit.replication.publication.tables import SourceTable, read_tables

_INSTEAD: Final = "or leave TRIGGERKIT_LOG at postgres"


async def require_possible(
    source: psycopg.AsyncConnection, declarations: Declarations, publication: str
) -> None:
    """Let only pass what a log on Kafka can be followed by.

    Raises:
        ConfigurationError: it names each declaration that it cannot, with what to do.
    """
    names = {
        (table.schema, table.name)
        for consumer in declarations.consumers
        for table in consumer.definition.table_names
    }
    tables = await read_tables(source, names, publication)
    problems = [*_of_declarations(declarations), *_of_tables(tables)]
    if problems:
        raise ConfigurationError("TRIGGERKIT_LOG is kafka: " + "; ".join(problems))


def _of_declarations(declarations: Declarations) -> Iterator[str]:
    for consumer in declarations.consumers:
        yield from _of_consumer(consumer)
    if declarations.events is not None:
        yield (
            "[events] writes topics of its own from previous versions of rows, which that log does "
            f"not keep; leave it out, {_INSTEAD}"
        )


def _of_consumer(consumer: Declared) -> Iterator[str]:
    definition = consumer.definition
    if definition.group_by is not None:
        yield (
            f"{consumer.where} has group_by, and messages of that log are in order by the key of "
            f"their row alone; leave group_by out, {_INSTEAD}"
        )
    if definition.body == "event":
        yield (
            f"{consumer.where} has body='event', which tells previous versions of rows, and that "
            f"log does not keep them; leave it out, {_INSTEAD}"
        )
    is_pulled = definition.endpoint is None and consumer.path is None
    if is_pulled and not definition.has_own_way:
        yield (
            f"{consumer.where} is pulled, and who asks cannot read that log; name an endpoint, "
            f"{_INSTEAD}"
        )


def _of_tables(tables: Mapping[tuple[str, str], SourceTable]) -> Iterator[str]:
    for name, table in sorted(tables.items()):
        if table.partial:
            remedy = table.set_full or f"a table whose updates carry all values, {_INSTEAD}"
            yield (
                f"updates of {table_text(*name)} leave out large values that they do not change, "
                "and that log keeps no previous version to complete them from; it needs: "
                f"{remedy}"
            )

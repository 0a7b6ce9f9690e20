"""Topics: one for each table whose changes are events.

Over the embedded log a topic's partitions are the log's, and its offsets are the log's positions:
a topic has those of its own table alone, so that there are gaps between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg.rows import class_row

from triggerkit.configuration.table_name import TableName, table_text
from triggerkit.errors import ConfigurationError
from triggerkit.log.entry import PARTITIONS

#: The partitions of every topic over the embedded log.
LOG_PARTITIONS: Final = PARTITIONS

#: What the names of topics begin with.
PREFIX: Final = "triggerkit"

#: Characters of a topic's name in Kafka.
LONGEST_NAME: Final = 249

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")

_FIELDS = """
name, label AS database, schema_name AS schema, table_name AS table, enabled, database_id,
partitions, replication_factor, tombstones, carries_old_rows
"""

_TOPICS = f"""
SELECT {_FIELDS} FROM triggerkit.topics
WHERE enabled AND (%(database)s::int IS NULL OR database_id = %(database)s) ORDER BY name
"""  # noqa: S608 - of constants

_ALL = f"""
SELECT {_FIELDS} FROM triggerkit.topics WHERE database_id = %s ORDER BY name
"""  # noqa: S608 - of constants

#: A name that another database's table had, and has not any more, is free; one that it has by now
#: stays its own.
_STORE = """
INSERT INTO triggerkit.topics (name, label, schema_name, table_name, database_id, partitions,
    replication_factor, tombstones, carries_old_rows)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (name) DO UPDATE SET label = excluded.label, schema_name = excluded.schema_name,
    table_name = excluded.table_name, enabled = true, database_id = excluded.database_id,
    partitions = excluded.partitions, replication_factor = excluded.replication_factor,
    tombstones = excluded.tombstones, carries_old_rows = excluded.carries_old_rows
WHERE NOT topics.enabled OR topics.database_id = excluded.database_id
"""

_DISABLE = "UPDATE triggerkit.topics SET enabled = false WHERE name = %s"

_TAKEN = """
SELECT t.name, d.name FROM triggerkit.topics t JOIN triggerkit.databases d ON d.id = t.database_id
WHERE t.enabled AND t.name = ANY (%s) AND t.database_id <> %s ORDER BY 1
"""

_CARRIES = """
UPDATE triggerkit.topics t SET carries_old_rows = w.carries
FROM unnest(%s::text[], %s::text[], %s::bool[]) AS w (schema_name, table_name, carries)
WHERE t.database_id = %s AND t.schema_name = w.schema_name AND t.table_name = w.table_name
  AND t.carries_old_rows <> w.carries
"""


@dataclass(frozen=True, slots=True)
class Topic:
    """The topic of a table. `database` is the label that stands for the database in its name.

    One that is not `enabled` is not declared any more: nobody gets anything of it. `partitions`,
    `replication_factor` (None: the broker's own) and `tombstones` are for Kafka. Where the WAL
    `carries_old_rows`, a deleted event has the row from there, else from the log.
    """

    name: str
    database: str
    schema: str
    table: str
    enabled: bool = True
    database_id: int = 0
    partitions: int = LOG_PARTITIONS
    replication_factor: int | None = None
    tombstones: bool = False
    carries_old_rows: bool = True

    @property
    def collection(self) -> str:
        """The table's name, with its schema where that is not `public`."""
        return collection_of(self.schema, self.table)

    @property
    def table_name(self) -> TableName:
        """The table."""
        return TableName(self.schema, self.table)


def collection_of(schema: str, table: str) -> str:
    """Return what events call a table."""
    return table if schema == "public" else table_text(schema, table)


def topic_name(label: str, schema: str, table: str) -> str:
    """Return the name of a table's topic: what Kafka does not take in a name is an underscore.

    Raises:
        ConfigurationError: it is longer than Kafka's names.
    """
    table_part = table if schema == "public" else f"{schema}.{table}"
    name = _NOT_IN_NAMES.sub("_", f"{PREFIX}.{label}.{table_part}")
    if len(name) > LONGEST_NAME:
        raise ConfigurationError(
            f"the topic of {table_text(schema, table)} would have a name of {len(name)} "
            f"characters, and Kafka's have {LONGEST_NAME} at most; give [events] a shorter database"
        )
    return name


async def topics(
    connection: psycopg.AsyncConnection, database_id: int | None = None
) -> list[Topic]:
    """Return the topics that are declared, of all databases or of one, by name."""
    async with connection.cursor(row_factory=class_row(Topic)) as cursor:
        await cursor.execute(_TOPICS, {"database": database_id})
        return await cursor.fetchall()


async def known_topics(connection: psycopg.AsyncConnection, database_id: int) -> list[Topic]:
    """Return all topics that a database has or had."""
    async with connection.cursor(row_factory=class_row(Topic)) as cursor:
        await cursor.execute(_ALL, [database_id])
        return await cursor.fetchall()


async def require_free(
    connection: psycopg.AsyncConnection, wanted: Iterable[Topic], database_id: int
) -> None:
    """See that no other database has a topic of one of these names.

    Raises:
        ConfigurationError: one has.
    """
    cursor = await connection.execute(_TAKEN, [[topic.name for topic in wanted], database_id])
    row = await cursor.fetchone()
    if row is not None:
        raise ConfigurationError(
            f"the topic {row[0]} is that of the database {row[1]} already; set database in "
            "[events] of triggerkit.toml to another label"
        )


async def store_topics(
    connection: psycopg.AsyncConnection, stored: Iterable[Topic], gone: Iterable[Topic]
) -> None:
    """Make the topics `stored` so, and those that are `gone` not declared any more.

    Raises:
        ConfigurationError: another database took a name since it was seen to be free.
    """
    for topic in gone:
        await connection.execute(_DISABLE, [topic.name])
    for topic in stored:
        values = [topic.name, topic.database, topic.schema, topic.table, topic.database_id]
        options = [topic.partitions, topic.replication_factor, topic.tombstones]
        cursor = await connection.execute(_STORE, [*values, *options, topic.carries_old_rows])
        if cursor.rowcount == 0:
            await require_free(connection, [topic], topic.database_id)


async def note_old_rows(
    connection: psycopg.AsyncConnection,
    database_id: int,
    carries: Mapping[tuple[str, str], bool],
) -> None:
    """Note of which tables the WAL carries the old rows, as they are now."""
    schemas, names = [schema for schema, _ in carries], [name for _, name in carries]
    await connection.execute(_CARRIES, [schemas, names, list(carries.values()), database_id])

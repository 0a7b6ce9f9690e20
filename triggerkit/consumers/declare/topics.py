"""From declared events to topics: each table's, and the consumer that writes them into Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import psycopg

from triggerkit.configuration.table_name import TableName, table_text
from triggerkit.consumers.declare.declaration import Declarations, Declared
from triggerkit.consumers.declare.preparations import Preparation
from triggerkit.consumers.definition import MAX_BATCH_SIZE, ConsumerDefinition
from triggerkit.consumers.source.database import Database
from triggerkit.errors import ConfigurationError
from triggerkit.events.declaration import DeclaredEvents
from triggerkit.events.topics import Topic, known_topics, require_free, store_topics, topic_name
from triggerkit.replication.publication.tables import SourceTable, read_tables
from triggerkit.replication.slot.replication_slot import identify
from triggerkit.replication.unknown_table import no_table
from triggerkit.replication.wal_marker import OWN_SCHEMA
from triggerkit.state.migrate import applied_version

#: The consumer that writes events into Kafka.
KAFKA_CONSUMER: Final = "kafka"

#: Events that a partition has under way at most: as many come twice when the process dies.
BATCH_SIZE: Final = MAX_BATCH_SIZE

#: The migration that makes the table of topics.
_SINCE: Final = 23

#: All tables of the application that are none's partitions.
_EVERY = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
  AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', %s)
ORDER BY 1, 2
"""

#: Fields of a topic that are shown when they change.
_SHOWN: Final = ("schema", "table", "partitions", "replication_factor", "tombstones")


@dataclass(frozen=True, slots=True)
class TopicSteps:
    """The topics that are wanted, and those that there are. `warnings` name the tables that "*"
    leaves out."""

    wanted: Sequence[Topic] = ()
    known: Sequence[Topic] = ()
    warnings: Sequence[str] = ()

    @property
    def tables(self) -> list[TableName]:
        """The tables that are to be followed."""
        return [topic.table_name for topic in self.wanted]

    @property
    def gone(self) -> list[Topic]:
        """The topics that are not declared any more."""
        names = {topic.name for topic in self.wanted}
        return [topic for topic in self.known if topic.enabled and topic.name not in names]

    def preparations(self) -> list[Preparation]:
        """Return what is made, changed or deleted."""
        there = {topic.name: topic for topic in self.known if topic.enabled}
        found = []
        for topic in self.wanted:
            known = there.get(topic.name)
            if known is None:
                table = f"table: {topic.table_name}"
                found.append(Preparation("create", "topic", topic.name, (table,)))
            elif details := _differences(known, topic):
                found.append(Preparation("change", "topic", topic.name, details))
        not_declared = ("it is not declared by the file any more",)
        found += [Preparation("delete", "topic", t.name, not_declared) for t in self.gone]
        return found

    async def make(self, state: psycopg.AsyncConnection, database_id: int) -> list[str]:
        """Make it so, and return what was done."""
        wanted = [replace(topic, database_id=database_id) for topic in self.wanted]
        if wanted or self.gone:
            async with state.transaction():
                await require_free(state, wanted, database_id)
                await store_topics(state, wanted, self.gone)
        return [step.done for step in self.preparations()]


async def plan_topics(
    source: psycopg.AsyncConnection,
    state: psycopg.AsyncConnection,
    database: Database | None,
    events: DeclaredEvents | None,
    publication: str,
) -> TopicSteps:
    """Return what the declared events need; change nothing.

    Raises:
        ConfigurationError: a table is not there, or two of them would have one topic.
    """
    has_topics = database is not None and await applied_version(state) >= _SINCE
    known = await known_topics(state, database.id) if has_topics and database is not None else []
    if events is None:
        return TopicSteps(known=known)
    names, warnings = await event_tables(source, events, publication)
    label = events.database
    if label is None:
        label = (await identify(source)).database if database is None else database.name
    wanted = [_topic(events, label, table) for table in names]
    _require_apart(wanted)
    if has_topics and database is not None:
        await require_free(state, wanted, database.id)
    return TopicSteps(wanted, known, warnings)


def with_kafka(declarations: Declarations, topics: TopicSteps) -> Declarations:
    """Return the declarations with the consumer that writes events into Kafka, if they are.

    Raises:
        ConfigurationError: Kafka would not make the topics of two tables.
    """
    if declarations.events is None or not declarations.has_kafka or not topics.wanted:
        return declarations
    _require_apart_in_kafka(topics.wanted)
    definition = ConsumerDefinition(
        name=KAFKA_CONSUMER,
        tables=tuple(map(str, topics.tables)),
        via="kafka",
        batch_size=BATCH_SIZE,
        # What a topic does not take now, it does not take a second later.
        max_attempts=1,
        on_exhausted=declarations.events.too_large,
    )
    declared = Declared(KAFKA_CONSUMER, definition, managed_by="file")
    return replace(declarations, consumers=[*declarations.consumers, declared])


async def event_tables(
    source: psycopg.AsyncConnection, events: DeclaredEvents, publication: str
) -> tuple[list[SourceTable], list[str]]:
    """Return the tables whose changes are declared to be events, and what is said of those left
    out.

    Raises:
        ConfigurationError: a table is not there, or of our own state.
    """
    given = events.table_names
    if given is None:
        rows = await (await source.execute(_EVERY, [OWN_SCHEMA])).fetchall()
        found = await read_tables(source, rows, publication)
        left_out = [
            f"triggerkit.toml events.tables: {table_text(*name)} {table.fault.problem}; it has no "
            f"events until you run: {table.fault.remedy}"
            for name, table in sorted(found.items())
            if table.fault is not None
        ]
        return [table for _, table in sorted(found.items()) if table.fault is None], left_out
    found = await read_tables(source, given, publication)
    problems = []
    for index, name in enumerate(given):
        where = f"triggerkit.toml events.tables.{index}"
        if name.schema == OWN_SCHEMA:
            problems.append(f"{where}: {name} is of our own state, which has no events")
        elif name not in found:
            problems.append(f"{where}: {await no_table(source, name)}")
    if problems:
        raise ConfigurationError("\n".join(problems))
    return [found[name] for name in given], []


def _topic(events: DeclaredEvents, label: str, table: SourceTable) -> Topic:
    schema, name = table.name
    return Topic(
        name=topic_name(label, schema, name),
        database=label,
        schema=schema,
        table=name,
        partitions=events.partitions,
        replication_factor=events.replication_factor,
        tombstones=events.tombstones,
        carries_old_rows=not table.partial,
    )


def _require_apart(wanted: Sequence[Topic]) -> None:
    seen: dict[str, Topic] = {}
    for topic in wanted:
        other = seen.setdefault(topic.name, topic)
        if other is not topic:
            raise ConfigurationError(
                f"triggerkit.toml events.tables: {other.table_name} and {topic.table_name} would "
                f"both have the topic {topic.name}; leave one of them out"
            )


def _require_apart_in_kafka(wanted: Sequence[Topic]) -> None:
    # By names that differ in dots and underscores alone, its metrics would be the same.
    seen: dict[str, Topic] = {}
    for topic in wanted:
        other = seen.setdefault(topic.name.replace(".", "_"), topic)
        if other is not topic:
            raise ConfigurationError(
                f"triggerkit.toml events.tables: the topics of {other.table_name} and "
                f"{topic.table_name} would be {other.name} and {topic.name}, of which Kafka has "
                "only one, since to it a dot is an underscore; leave one of the tables out"
            )


def _differences(before: Topic, after: Topic) -> tuple[str, ...]:
    return tuple(
        f"{name}: {getattr(before, name)} → {getattr(after, name)}"
        for name in _SHOWN
        if getattr(before, name) != getattr(after, name)
    )

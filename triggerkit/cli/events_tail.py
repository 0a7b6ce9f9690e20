"""`events tail`: events as they come, of some topics or of all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import orjson
import psycopg
import typer

from triggerkit.cli.options import Json
from triggerkit.cli.run_client import console, print_json, with_state
from triggerkit.configuration.quantities import SECONDS
from triggerkit.configuration.table_name import TableName
from triggerkit.errors import ConfigurationError
from triggerkit.events.event import Event, message
from triggerkit.events.topic_log import TopicLog, TopicPartition
from triggerkit.log.json_object import split_object

#: Seconds between two looks.
POLL_S = 0.3

#: Characters of an event's values that a line shows.
SHOWN_CHARS = 200


class Kind(StrEnum):
    """What an event is."""

    inserted = "inserted"
    updated = "updated"
    deleted = "deleted"
    truncated = "truncated"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are shown: all that are not given are not looked at."""

    topics: tuple[str, ...]
    table: TableName | None
    actions: frozenset[str]
    key: str | None

    def parts(self, log: TopicLog) -> list[TopicPartition]:
        """Return the partitions that are followed.

        Raises:
            UnknownTopic: there is no topic of a name that was given.
        """
        names = [log.topic(name).name for name in self.topics] or list(log.topics)
        if self.table is not None:
            names = [name for name in names if log.topics[name].table_name == self.table]
        return [(name, partition) for name in names for partition in range(log.partitions[name])]

    def has(self, event: Event) -> bool:
        """Return whether an event of a followed topic is shown."""
        if self.key is not None and event.key != self.key:
            return False
        return not self.actions or _kind(event) in self.actions


def tail(
    topic: Annotated[
        list[str] | None, typer.Argument(help="Topics; all of them unless given.")
    ] = None,
    table: Annotated[str | None, typer.Option(help="Only events of this table.")] = None,
    action: Annotated[
        list[Kind] | None, typer.Option(help="Only these events; repeatable.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Only events of this key.")] = None,
    since: Annotated[
        str,
        typer.Option(
            "--from",
            help="Where to begin: latest, earliest, an offset, a time, or how long ago (10m).",
        ),
    ] = "latest",
    json: Json = False,
) -> None:
    """Follow events as they come, until interrupted."""
    wanted = Wanted(
        tuple(topic or ()),
        None if table is None else TableName.parse(table),
        frozenset(action or ()),
        key,
    )
    with_state(lambda state: _follow(state, wanted, since, json))


async def _follow(state: psycopg.AsyncConnection, wanted: Wanted, since: str, json: bool) -> None:
    log = await TopicLog.look(state)
    following: dict[TopicPartition, int] = {}
    for part in wanted.parts(log):
        following[part] = await _begin(state, log, part, since)
    if not following:
        raise ConfigurationError(
            "there is no such topic; name tables in [events] of triggerkit.toml and run: "
            "triggerkit apply"
        )
    while True:
        read = await log.read(state, following)
        following = read.following
        for event in filter(wanted.has, read.events):
            if json:
                print_json(message(event))
            else:
                console.print(_line(event), markup=False)
        if not read.events:
            await asyncio.sleep(POLL_S)
            log = await TopicLog.look(state)
            # A topic that is declared since is followed from its beginning.
            for part in wanted.parts(log):
                following.setdefault(part, log.bounds_of(*part).first)


async def _begin(
    state: psycopg.AsyncConnection, log: TopicLog, part: TopicPartition, since: str
) -> int:
    bounds = log.bounds_of(*part)
    if since in ("latest", "earliest"):
        return bounds.end if since == "latest" else bounds.first
    if since.isdecimal():
        log.require(*part, int(since))
        return int(since)
    return await log.offset_at(state, part, _time(since))


def _time(text: str) -> datetime:
    try:
        return datetime.now(UTC) - timedelta(seconds=SECONDS.read(text))
    except (ValueError, OverflowError):
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"--from {text!r} is not understood: latest, earliest, an offset, a time such as "
            "2026-10-28T21:39, or how long ago, such as 10m"
        ) from None
    return at if at.tzinfo is not None else at.astimezone()


def _kind(event: Event) -> str:
    return str(orjson.loads(split_object(event.value)["event"]))


def _line(event: Event) -> str:
    members = split_object(event.value)
    at = datetime.fromtimestamp(event.timestamp / 1000, UTC)
    what = members.get("changes") if _kind(event) == "updated" else members.get("data")
    values = b"" if what is None else what
    if _kind(event) == "updated":
        values = b"was %b, is %b" % (values, members.get("data", b""))
    text = values.decode()
    shown = text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"
    parts = [
        f"{at:%H:%M:%S}",
        str(event.offset),
        event.topic,
        _kind(event),
        "" if event.key is None else event.key,
        shown,
    ]
    return "  ".join(filter(None, parts))

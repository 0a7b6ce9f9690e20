"""`events tail`: events as they come, of some topics or of all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
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
from triggerkit.events.message import Message, as_json
from triggerkit.events.open import opened_source
from triggerkit.events.source import Source, TopicPartition, View
from triggerkit.events.topics import topics as declared_topics
from triggerkit.log.json_object import split_object
from triggerkit.settings import Settings

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

    async def names(self, state: psycopg.AsyncConnection) -> list[str]:
        """Return the names of the topics that are followed, as far as they are declared."""
        return [
            topic.name
            for topic in await declared_topics(state)
            if topic.name in self.topics or not self.topics
            if self.table is None or topic.table_name == self.table
        ]

    def parts(self, view: View, names: Sequence[str]) -> list[TopicPartition]:
        """Return the partitions that are followed.

        Raises:
            UnknownTopic: there is no topic of a name that was given.
        """
        for name in self.topics:
            view.require_topic(name)
        return [(name, p) for name in names for p in range(view.partitions.get(name, 0))]

    def has(self, message: Message) -> bool:
        """Return whether a message of a followed topic is shown."""
        if self.key is not None and message.key != self.key:
            return False
        return not self.actions or _kind(message) in self.actions


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
    async with opened_source(Settings.load().kafka, state) as source:
        await _follow_in(source, state, wanted, since, json)


async def _follow_in(
    source: Source, state: psycopg.AsyncConnection, wanted: Wanted, since: str, json: bool
) -> None:
    names = await wanted.names(state)
    view = await source.look(names)
    following = {part: await _begin(view, part, since) for part in wanted.parts(view, names)}
    if not following:
        raise ConfigurationError(
            "there is no such topic; name tables in [events] of triggerkit.toml and run: "
            "triggerkit apply"
        )
    while True:
        read = await view.read(following)
        following |= read.following
        for message in filter(wanted.has, read.messages):
            if json:
                print_json(as_json(message))
            else:
                console.print(_line(message), markup=False)
        if not read.messages:
            await asyncio.sleep(POLL_S)
        names = await wanted.names(state)
        view = await source.look(names)
        # A topic that is declared since is followed from its beginning.
        for part in wanted.parts(view, names):
            following.setdefault(part, view.bounds_of(*part).first)


async def _begin(view: View, part: TopicPartition, since: str) -> int:
    bounds = view.bounds_of(*part)
    if since in ("latest", "earliest"):
        return bounds.end if since == "latest" else bounds.first
    if since.isdecimal():
        await view.require(*part, int(since))
        return int(since)
    return await view.offset_at(part, _time(since))


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


def _kind(message: Message) -> str | None:
    """Return what the event is; None of a message that is none."""
    kind = _members(message).get("event")
    return None if kind is None else str(orjson.loads(kind))


def _members(message: Message) -> dict[str, bytes]:
    """Return the members of an event; none of what is none, as others may have written it."""
    if message.value is None or message.base64:
        return {}
    try:
        return split_object(message.value.encode())
    except ValueError:
        return {}


def _line(message: Message) -> str:
    members, kind = _members(message), _kind(message)
    text = message.value or ""
    if kind is not None:
        text = members.get("data", b"").decode()
    if kind == "updated":
        text = f"was {members.get('changes', b'').decode()}, is {text}"
    shown = text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"
    parts = [
        _clock(message.timestamp),
        str(message.offset),
        message.topic,
        kind or "",
        "" if message.key is None else message.key,
        shown,
    ]
    return "  ".join(filter(None, parts))


def _clock(milliseconds: int) -> str:
    """Return the time of day; of a time that there is not, as others may have written, nothing."""
    try:
        return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return "--:--:--"

"""`events`: topics, their messages, and the users who may read them."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Annotated, Any

import psycopg
import typer
from rich.table import Table

from triggerkit.cli.actor import actor
from triggerkit.cli.captured.events_tail import tail
from triggerkit.cli.options import Json
from triggerkit.cli.run_client import console, print_json, print_table, with_state
from triggerkit.errors import ConfigurationError
from triggerkit.events.accounts import add_account, remove_account
from triggerkit.events.kafka.faults import KafkaFault, remedy_of
from triggerkit.events.message import Message, as_json
from triggerkit.events.open import opened_source
from triggerkit.events.source import MOST_MESSAGES, Source
from triggerkit.events.topics import topics as declared_topics
from triggerkit.events.users import list_users, new_password
from triggerkit.settings import Settings

TopicName = Annotated[str, typer.Argument(help="The topic's name.")]
UserName = Annotated[str, typer.Argument(help="The user's name.")]


def register(app: typer.Typer) -> None:
    """Add the group to `app`."""
    events = typer.Typer(help="Read the events, and say who may.", no_args_is_help=True)
    events.command("topics")(topics)
    events.command("fetch")(fetch)
    events.command("tail")(tail)
    users = typer.Typer(help="Users who read the events by Kafka or REST.", no_args_is_help=True)
    users.command("add")(users_add)
    users.command("list")(users_list)
    users.command("remove")(users_remove)
    events.add_typer(users, name="users")
    app.add_typer(events, name="events")


def topics(json: Json = False) -> None:
    """List the topics: their tables, partitions and offsets."""
    found = with_state(_topics)
    if json:
        print_json(found)
        return
    table = Table("topic", "table", "partitions", "earliest", "latest", box=None, pad_edge=False)
    for one in found:
        table.add_row(*map(str, one.values()))
    print_table(table)


async def _topics(state: psycopg.AsyncConnection) -> list[dict[str, Any]]:
    declared = await declared_topics(state)
    async with opened_source(Settings.load().kafka, state) as source:
        view = await source.look([topic.name for topic in declared])
    found = []
    for topic in declared:
        try:
            view.require_topic(topic.name)
        except KafkaFault as fault:
            _tell(f"{fault}; {remedy_of(str(fault))}")
            continue
        count = view.partitions[topic.name]
        bounds = [view.bounds_of(topic.name, partition) for partition in range(count)]
        found.append(
            {
                "name": topic.name,
                "table": str(topic.table_name),
                "partitions": count,
                "earliest": min(one.first for one in bounds),
                "latest": max(one.end for one in bounds),
            }
        )
    return found


def fetch(
    topic: TopicName,
    offset: Annotated[
        int | None, typer.Option(min=0, help="The first offset; the earliest unless given.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")] = 100,
    json: Json = False,
) -> None:
    """Print messages of a topic from an offset on, those of each key in their order."""
    found = with_state(lambda state: _fetched(state, topic, offset, limit))
    if json:
        print_json([as_json(message) for message in found])
        return
    for message in found:
        key, value = ("-" if text is None else text for text in (message.key, message.value))
        console.print(f"{message.offset}  {message.partition}  {key}  {value}", markup=False)


async def _fetched(
    state: psycopg.AsyncConnection, topic: str, offset: int | None, limit: int
) -> list[Message]:
    async with opened_source(Settings.load().kafka, state) as source:
        return await _read(source, topic, offset, limit)


async def _read(source: Source, topic: str, offset: int | None, limit: int) -> list[Message]:
    view = await source.look([topic])
    view.require_topic(topic)
    bounds = {p: view.bounds_of(topic, p) for p in range(view.partitions[topic])}
    # An offset that only others of its partitions have is none of a partition of Kafka.
    if offset is not None and not any(one.has(offset) for one in bounds.values()):
        await view.require(topic, 0, offset)
    following = {
        (topic, p): one.first if offset is None else max(offset, one.first)
        for p, one in bounds.items()
        if offset is None or offset <= one.end
    }
    found: list[Message] = []
    while len(found) < limit and any(at < bounds[p].end for (_, p), at in following.items()):
        read = await view.read(following, min(MOST_MESSAGES, limit - len(found)))
        found += read.messages
        following = read.following
    return found


def users_add(
    name: UserName,
    password_stdin: Annotated[
        bool,
        typer.Option(
            "--password-stdin", help="Read the password from standard input; else one is made."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Add a user; a password that is made is printed this once."""
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else new_password()
    if password_stdin and not password:
        raise ConfigurationError("there is no password on standard input")
    kafka = Settings.load().kafka
    _, problem = with_state(
        lambda state: add_account(lambda: nullcontext(state), kafka, name, password, actor())
    )
    _tell(problem)
    if json:
        print_json({"name": name, **({} if password_stdin else {"password": password})})
    elif password_stdin:
        console.print(f"added {name}", markup=False)
    else:
        # The password alone, for scripts to take; the rest is for whoever sees it.
        print(password, flush=True)
        print(f"added {name}; its password is shown this once", file=sys.stderr)


def users_list(json: Json = False) -> None:
    """List the users."""
    found = with_state(list_users)
    if json:
        print_json(found)
        return
    table = Table("user", "added", box=None, pad_edge=False)
    for user in found:
        table.add_row(user.name, f"{user.created_at:%Y-%m-%d %H:%M:%S}")
    print_table(table)


def users_remove(name: UserName) -> None:
    """Remove a user: its requests are refused from now on."""
    kafka = Settings.load().kafka
    _tell(
        with_state(lambda state: remove_account(lambda: nullcontext(state), kafka, name, actor()))
    )
    console.print(f"removed {name}", markup=False)


def _tell(problem: str | None) -> None:
    if problem is not None:
        print(f"warning: {problem}", file=sys.stderr)

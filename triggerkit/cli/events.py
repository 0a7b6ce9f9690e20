"""`events`: topics, their messages, and the users who may read them."""

from __future__ import annotations

import sys
from asyncio import run
from typing import Annotated

import psycopg
import typer
from rich.table import Table

from triggerkit.cli.events_tail import tail
from triggerkit.cli.options import Json
from triggerkit.cli.run_client import actor, console, print_json, print_table, with_state
from triggerkit.errors import ConfigurationError
from triggerkit.events.event import Event, message
from triggerkit.events.kafka.users import added_in_kafka, removed_from_kafka
from triggerkit.events.topic_log import MOST_MESSAGES, TopicLog
from triggerkit.events.users import add_user, list_users, new_password, remove_user
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
    log = with_state(TopicLog.look)
    found = [
        {
            "name": topic.name,
            "table": str(topic.table_name),
            "partitions": log.partitions[name],
            "earliest": log.bounds[topic.database_id].first,
            "latest": log.bounds[topic.database_id].end,
        }
        for name, topic in log.topics.items()
    ]
    if json:
        print_json(found)
        return
    table = Table("topic", "table", "partitions", "earliest", "latest", box=None, pad_edge=False)
    for one in found:
        table.add_row(*map(str, one.values()))
    print_table(table)


def fetch(
    topic: TopicName,
    offset: Annotated[
        int | None, typer.Option(min=0, help="The first offset; the earliest unless given.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")] = 100,
    json: Json = False,
) -> None:
    """Print messages of a topic from an offset on, in the order of their commits."""
    found = with_state(lambda state: _fetched(state, topic, offset, limit))
    if json:
        print_json([message(event) for event in found])
        return
    for event in found:
        key = "-" if event.key is None else event.key
        value = event.value.decode()
        console.print(f"{event.offset}  {event.partition}  {key}  {value}", markup=False)


async def _fetched(
    state: psycopg.AsyncConnection, topic: str, offset: int | None, limit: int
) -> list[Event]:
    log = await TopicLog.look(state)
    bounds = log.bounds_of(topic, 0)
    first = bounds.first if offset is None else offset
    log.require(topic, 0, first)
    following = {(topic, partition): first for partition in range(log.partitions[topic])}
    found: list[Event] = []
    while len(found) < limit and min(following.values()) < bounds.end:
        read = await log.read(state, following, min(MOST_MESSAGES, limit - len(found)))
        found += read.events
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
    with_state(lambda state: add_user(state, name, password, actor()))
    _tell(run(added_in_kafka(Settings.load().kafka, name, password)))
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
    with_state(lambda state: remove_user(state, name, actor()))
    _tell(run(removed_from_kafka(Settings.load().kafka, name)))
    console.print(f"removed {name}", markup=False)


def _tell(problem: str | None) -> None:
    if problem is not None:
        print(f"warning: {problem}", file=sys.stderr)

"""The commands of `events`: topics, fetch, and users whose password is shown once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import psycopg
import pytest
from typer.testing import CliRunner

from tests.conformance.events.world import POSTS, USERS, EventsWorld, basic, events_over_the_log
from triggerkit.cli.main import application
from triggerkit.errors import ConfigurationError, NameTaken, UnknownEventUser
from triggerkit.events.source import OffsetOutOfRange, UnknownTopic
from triggerkit.settings import Settings

Run = Callable[..., str]


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `events` with arguments; what it prints on standard output."""
    monkeypatch.setenv("DATABASE_URL", settings.source_dsn)
    monkeypatch.delenv("TRIGGERKIT_STATE_URL", raising=False)

    def run(*arguments: str, given: str | None = None) -> str:
        result = CliRunner().invoke(application("events"), ["events", *arguments], input=given)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.stdout

    return run


def test_a_user_is_added_read_with_and_removed(settings: Settings, run: Run) -> None:
    with events_over_the_log(settings) as world:
        password = run("users", "add", "alice").splitlines()[-1]
        assert len(password) == 32
        assert _status(world, "alice", password) == 200
        names = [user["name"] for user in orjson.loads(run("users", "list", "--json"))]
        assert names == ["alice", "reader"]
        assert password not in run("users", "list")
        with pytest.raises(NameTaken, match="alice"):
            run("users", "add", "alice")
        assert run("users", "remove", "alice") == "removed alice\n"
        assert _status(world, "alice", password) == 401
        with pytest.raises(UnknownEventUser, match="known users: reader"):
            run("users", "remove", "alice")


def test_a_password_is_read_from_standard_input(settings: Settings, run: Run) -> None:
    with events_over_the_log(settings) as world:
        given = "chosen by the user ключ\n"
        assert run("users", "add", "bob", "--password-stdin", given=given) == "added bob\n"
        assert _status(world, "bob", given.rstrip()) == 200
        for bad in ("", "short\n", f"{'x' * 1025}\n"):
            with pytest.raises(ConfigurationError):
                run("users", "add", "carol", "--password-stdin", given=bad)
        for name in ("", "a:b", "-x", "a" * 65, "é"):
            with pytest.raises(ConfigurationError):
                run("users", "add", "--", name)


def test_no_password_is_stored(settings: Settings, run: Run) -> None:
    made = orjson.loads(run("users", "add", "alice", "--json"))
    with psycopg.connect(settings.state_dsn) as connection:
        rows = connection.execute("SELECT password FROM triggerkit.event_users").fetchall()
        audit = connection.execute("SELECT action, subject FROM triggerkit.audit").fetchall()
    assert made["password"] not in repr(rows)
    assert rows[0][0].startswith("scrypt$")
    assert audit == [("add user of events", "alice")]


def test_messages_are_fetched_in_the_order_of_their_commits(settings: Settings, run: Run) -> None:
    with events_over_the_log(settings) as world:
        world.write(range(1, 31))
        world.write([1, 2], table="users")
        listed = orjson.loads(run("topics", "--json"))
        assert [topic["name"] for topic in listed] == [POSTS, USERS]
        assert [(topic["earliest"], topic["latest"]) for topic in listed] == [(1, 33)] * 2
        found = orjson.loads(run("fetch", POSTS, "--json"))
        assert [int(message["key"]) for message in found] == list(range(1, 31))
        assert found == sorted(world.fetch_all(), key=lambda message: int(message["offset"]))
        some = _fetch(run, POSTS, "--offset", "10", "--limit", "3")
        assert [message["offset"] for message in some] == [10, 11, 12]
        assert '"title":"post 1"' in run("fetch", POSTS, "--limit", "1")
        with pytest.raises(UnknownTopic, match="known topics"):
            run("fetch", "nothing")
        with pytest.raises(OffsetOutOfRange, match="the earliest is 1, the latest 33"):
            run("fetch", POSTS, "--offset", "34")


def _fetch(run: Run, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = orjson.loads(run("fetch", *arguments, "--json"))
    return found


def _status(world: EventsWorld, user: str, password: str) -> int:
    answer = world.site.request("GET", "/kafka/topics", None, basic(user, password))
    return answer.status

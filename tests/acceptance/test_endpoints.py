"""Endpoints by command, as a user types them; and that nothing secret is ever shown or stored."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import orjson
import psycopg
import pytest
from psycopg import sql
from standardwebhooks import Webhook
from starlette.responses import JSONResponse, Response

from tests.acceptance.project import run_command
from tests.conftest import WEBHOOK_SECRET
from tests.integration.run_state import RunState
from tests.integration.serving import serving
from tests.integration.worker_thread import Row
from tests.receiver import Received, Receiver
from triggerkit import Change, rows, task
from triggerkit.settings import Settings
from triggerkit.web.application import Application

KEY = secrets.token_urlsafe(32)

NEXT_KEY = secrets.token_urlsafe(32)

URL = "https://93.184.216.34/hook"


@task(on=rows("public.posts"))
def probed_route(change: Change[Row]) -> None: ...


class Commands:
    """`triggerkit endpoints …` in a folder of its own; keeps all that was ever said."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.said = ""
        self.settings = {
            "DATABASE_URL": database_url,
            "TRIGGERKIT_ENCRYPTION_KEY": KEY,
            "TRIGGERKIT_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "TRIGGERKIT_ALLOW_NETWORKS": "127.0.0.0/8",
        }

    def __call__(
        self, *arguments: str, settings: Mapping[str, str] | None = None
    ) -> CompletedProcess[str]:
        done = run_command(
            self.folder,
            "triggerkit",
            "endpoints",
            *arguments,
            settings={**self.settings, **(settings or {})},
        )
        self.said += done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def json(self, *arguments: str, settings: Mapping[str, str] | None = None) -> Any:
        return orjson.loads(self(*arguments, "--json", settings=settings).stdout)


@pytest.fixture
def endpoints(tmp_path: Path, database_url: str) -> Commands:
    return Commands(tmp_path, database_url)


def stored(database_url: str) -> str:
    """All that the tables of the state hold, as text."""
    found = []
    with psycopg.connect(database_url, autocommit=True) as connection:
        names = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'triggerkit'"
        ).fetchall()
        for (name,) in names:
            query = sql.SQL("SELECT row_to_json(t)::text FROM triggerkit.{} t")
            rows_of = connection.execute(query.format(sql.Identifier(name))).fetchall()
            found += [text for (text,) in rows_of]
    return "\n".join(found)


def test_an_endpoint_is_created_shown_changed_and_deleted(endpoints: Commands) -> None:
    created = endpoints("create", "billing", URL, "--header", "X-Team: env:TEAM",
                        settings={"TEAM": "blue"})  # fmt: skip
    assert (created.returncode, created.stdout, created.stderr) == (
        0,
        "created endpoint billing\n",
        "",
    )
    [listed] = endpoints.json("list")
    assert (listed["name"], listed["url"], listed["consumers"]) == ("billing", URL, [])
    assert list(listed["headers"]) == ["X-Team"]
    assert endpoints.json("show", "billing") == listed
    changed = endpoints("edit", "billing", "--url", f"{URL}/2", "--remove-header", "x-team")
    assert changed.returncode == 0
    shown = endpoints.json("show", "billing")
    assert (shown["url"], shown["headers"]) == (f"{URL}/2", {})
    assert "billing" in endpoints("list").stdout
    assert f"url          {URL}/2" in endpoints("show", "billing").stdout
    assert endpoints("enable", "billing").stdout.endswith("active again: no consumer\n")
    assert endpoints("delete", "billing").returncode == 0
    assert endpoints.json("list") == []


def test_a_signing_secret_is_printed_once_and_rotates(endpoints: Commands) -> None:
    first = secret_in(endpoints("create", "billing", URL, "--signing-secret", "generate"))
    [mark] = endpoints.json("show", "billing")["signing"]
    second = secret_in(endpoints("edit", "billing", "--signing-secret", "rotate"))
    assert first != second
    rotating = endpoints.json("show", "billing")["signing"]
    assert rotating[1] == mark
    assert endpoints("edit", "billing", "--signing-secret", "retire").returncode == 0
    assert endpoints.json("show", "billing")["signing"] == rotating[:1]
    assert endpoints("edit", "billing", "--signing-secret", "none").returncode == 0
    assert endpoints.json("show", "billing")["signing"] == []
    assert (endpoints.said.count(first), endpoints.said.count(second)) == (1, 1)


def secret_in(done: CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("signing secret")]
    return line.rpartition(" ")[2]


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["create", "x", "http://10.0.0.1/"], 2, "TRIGGERKIT_ALLOW_NETWORKS"),
        (["create", "x", "https://user:hunter2@93.184.216.34/"], 2, "header instead"),
        (["create", "x", URL, "--header", "Authorization"], 2, "'Name: value'"),
        (["create", "x", URL, "--header", "Host: env:PATH"], 2, "Host"),
        (["create", "x", URL, "--header", "X: env:NOT_THERE"], 2, "NOT_THERE"),
        (["create", "x", URL, "--header", "X: @missing"], 2, "missing"),
        (["create", "x", URL, "--signing-secret", "env:PATH"], 2, "whsec_"),
        (["show", "x"], 1, "'x'"),
        (["edit", "x"], 1, "'x'"),
        (["delete", "x"], 1, "'x'"),
        (["enable", "x"], 1, "'x'"),
        (["test", "x"], 1, "'x'"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_an_exit_code(
    endpoints: Commands, arguments: list[str], code: int, problem: str
) -> None:
    done = endpoints(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert len(done.stderr.splitlines()) == 1
    assert problem in done.stderr
    assert "hunter2" not in done.stderr


def test_a_secret_on_the_command_line_is_taken_with_a_warning(endpoints: Commands) -> None:
    done = endpoints("create", "billing", URL, "--header", "Authorization: Bearer hunter2")
    assert done.returncode == 0
    assert "env:NAME" in done.stderr
    assert "hunter2" not in done.stderr


def test_keys_are_rotated_by_one_command(endpoints: Commands) -> None:
    endpoints("create", "billing", URL, "--signing-secret", "generate")
    rotating = {"TRIGGERKIT_ENCRYPTION_KEY": f"{NEXT_KEY},{KEY}"}
    assert endpoints("reencrypt", settings=rotating).stdout == "reencrypted billing\n"
    shown = endpoints.json("show", "billing", settings={"TRIGGERKIT_ENCRYPTION_KEY": NEXT_KEY})
    assert len(shown["signing"]) == 1
    hidden = endpoints.json("show", "billing")
    assert hidden["signing"] == []
    assert "TRIGGERKIT_ENCRYPTION_KEY" in hidden["problem"]


def test_no_secret_is_ever_shown_or_stored_in_the_clear(
    endpoints: Commands, database_url: str
) -> None:
    bearer, other = f"canary{secrets.token_hex(12)}", f"canary{secrets.token_hex(12)}"
    (endpoints.folder / "other").write_text(f"{other}\n")
    private = {"TOKEN": bearer}

    async def refuse(_received: Received) -> Response:
        return JSONResponse({"error": "no"}, 401)

    async def scenario() -> tuple[str, Received]:
        async with Receiver.start() as receiver:
            url = f"{receiver.url}/push"
            created = await asyncio.to_thread(
                endpoints, "create", "billing", url, "--header", "Authorization: Bearer env:TOKEN",
                "--header", "X-Other: @other", "--signing-secret", "generate", settings=private,
            )  # fmt: skip
            signing = secret_in(created)
            endpoints.said = endpoints.said.replace(signing, "(printed once)")
            tested = await asyncio.to_thread(endpoints, "test", "billing")
            assert tested.returncode == 0, tested.stdout
            receiver.answer = refuse
            refused = await asyncio.to_thread(endpoints.json, "test", "billing")
            assert (refused["ok"], refused["status"]) == (False, 401)
            return signing, receiver.requests[0]

    signing, received = asyncio.run(scenario())
    assert received.headers["authorization"] == f"Bearer {bearer}"
    assert received.headers["x-other"] == other
    Webhook(signing).verify(received.body, received.headers)
    lost = {"TRIGGERKIT_ENCRYPTION_KEY": NEXT_KEY}
    for arguments in (["list"], ["list", "--json"], ["show", "billing"], ["test", "billing"]):
        endpoints(*arguments)
        endpoints(*arguments, settings=lost)
    endpoints("edit", "billing", "--remove-header", "X-Other")
    endpoints("edit", "billing", "--header", "Host: env:TOKEN", settings=private)
    endpoints("create", "billing", URL, "--header", "X: env:TOKEN", settings=private)
    endpoints("create", "bad", URL, "--header", "X: env:TOKEN", settings={"TOKEN": f"{bearer}\n"})
    endpoints("create", "bad", URL, settings={"TRIGGERKIT_ENCRYPTION_KEY": f"{KEY}x"})
    endpoints("reencrypt", settings=lost)
    everything = endpoints.said + stored(database_url)
    assert "billing" in stored(database_url)
    for secret in (bearer, other, signing, signing[6:], KEY, NEXT_KEY):
        assert secret not in everything
        # A bytea is text of hexadecimal digits.
        assert secret.encode().hex() not in everything


def test_our_own_route_answers_a_test_without_a_run(
    endpoints: Commands, settings: Settings, state: RunState
) -> None:
    with serving(Application(settings, [probed_route], None)) as site:
        base = f"http://127.0.0.1:{site.port}"
        endpoints("create", "route", f"{base}{probed_route.path}")
        report = endpoints.json("test", "route", settings={"TRIGGERKIT_PUBLIC_URL": base})
        assert (report["ok"], report["status"]) == (True, 200)
        assert report["answer"] == '{"test":true}'
        other = {"TRIGGERKIT_PUBLIC_URL": f"http://127.0.0.1:{site.port ^ 1}"}
        elsewhere = endpoints.json("test", "route", settings=other)
        assert (elsewhere["ok"], elsewhere["status"]) == (False, 401)
        assert "does not know us" in elsewhere["meaning"]
    refused = endpoints("test", "route")
    assert refused.returncode == 1
    assert "✗ connect" in refused.stdout
    assert state.statuses() == []

"""The tunnel as the page on it tells: by the real commands, on a server and on a laptop."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests import ROOT
from tests.acceptance.project import eventually, run_command
from tests.acceptance.receivers import NodeReceiver, node_receiver
from tests.acceptance.terminal import Terminal
from tests.acceptance.tunnel_rig import BEARER, Office, laptop
from triggerkit.signature import new_secret

SIGNING = new_secret()


@pytest.fixture
def app() -> Iterator[NodeReceiver]:
    """The app on the laptop, a server of Node."""
    with node_receiver(BEARER, SIGNING) as receiver:
        yield receiver


@pytest.fixture
def office(tmp_path: Path, database_url: str, redis_url: str) -> Office:
    folder = tmp_path / "office"
    folder.mkdir()
    return Office(folder, database_url, redis_url, SIGNING)


def titles(app: NodeReceiver) -> list[str]:
    """The titles that it got, test messages left out."""
    records = [message["record"] for message in app.received]
    return [record["title"] for record in records if record is not None]


def test_rows_reach_the_app_on_the_laptop_and_wait_while_it_is_away(
    office: Office, app: NodeReceiver, tmp_path: Path
) -> None:
    token = office.token("alice")
    where = [f"--ports={app.port}:local_endpoint", "--server", f"http://127.0.0.1:{office.port}"]
    command = [*where, "--token", f"@{token}"]
    home = tmp_path / "laptop"
    with office.process("serve"), office.process("stream"):
        office.until_serving()
        office.sql("INSERT INTO posts VALUES (1, 'before')")
        eventually(lambda: "1 message waits" in office.triggerkit("endpoints", "list"), 30, "one")
        told = office.triggerkit("status", "--json")
        assert "tunnel_away" in told
        with laptop(home, *command) as tunnel:
            tunnel.wait_for("delivery")
            [ready] = tunnel.events("ready")
            assert ready["user"] == "alice"
            assert ready["tunnels"][0]["waiting"] == 1
            [delivery] = tunnel.events("delivery")
            assert (delivery["status"], delivery["rows"]) == (200, 1)
            assert delivery["tables"] == ["public.posts"]
            shown = office.triggerkit("endpoints", "show", "local_endpoint")
            assert f"tunnel: alice (port {app.port}); 0 messages wait" in shown
            tested = orjson.loads(
                office.triggerkit("endpoints", "test", "local_endpoint", "--json")
            )
            assert (tested["ok"], tested["status"]) == (True, 200)
            tunnel.wait_for("delivery", 2)
            assert tunnel.interrupt() == 0
            assert tunnel.events("ended") == [{"event": "ended", "deliveries": 2}]
        assert "tunnel: none" in office.triggerkit("endpoints", "show", "local_endpoint")
        office.sql("INSERT INTO posts VALUES (2, 'while away')")
        with laptop(home, *command):
            eventually(lambda: titles(app)[-1:] == ["while away"], 30, "the row of meanwhile")
    assert titles(app) == ["before", "while away"]
    assert app.refused == 0


def test_keys_send_again_and_show_details(
    office: Office, app: NodeReceiver, tmp_path: Path
) -> None:
    token = office.token("alice")
    with office.process("serve"), office.process("stream"):
        office.until_serving()
        terminal = Terminal(
            tmp_path,
            "triggerkit",
            "tunnel",
            f"--ports={app.port}:local_endpoint",
            "--server",
            f"ws://127.0.0.1:{office.port}",
            "--token",
            f"@{token}",
            settings={"NO_COLOR": "1"},
        )
        try:
            terminal.wait_for("0 messages wait")
            terminal.wait_for("keys: r sends again")
            terminal.type("r")
            terminal.wait_for("nothing was delivered yet")
            office.sql("INSERT INTO posts VALUES (1, 'once')")
            terminal.wait_for("1 row")
            terminal.type("r")
            terminal.wait_for("sent again")
            terminal.type("d")
            terminal.wait_for("authorization: ***")
            terminal.wait_for("answer 200")
            assert BEARER not in terminal.shown
            assert terminal.interrupt() == 0
            terminal.wait_for("ended after 2 deliveries")
        finally:
            terminal.close()
    assert titles(app) == ["once", "once"]


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        ([], 2, "--ports is missing"),
        (["--ports=x"], 2, "PORT:ENDPOINT"),
        (["--ports=0:a"], 2, "PORT:ENDPOINT"),
        (["--ports=3001:a,3002:a"], 2, "given twice"),
        (["--ports=3001:a"], 2, "--server is missing"),
        (["--ports=3001:a", "--server", "app.example.com"], 2, "--token is missing"),
        (["--ports=3001:a", "--server", "ftp://x", "--token", "@t"], 2, "wss://app.example.com"),
        (["--ports=3001:a", "--server", "wss://a:hunter2@x", "--token", "@t"], 2, "password"),
        (["--ports=3001:a", "--server", "ws://10.0.0.1", "--token", "@t"], 2, "wss://10.0.0.1"),
        (["--ports=3001:a", "--server", "ws://127.0.0.1:1", "--token", "@no"], 2, "cannot be read"),
        (["--ports=3001:a", "--server", "ws://127.0.0.1:1", "--token", "@t"], 4, "cannot connect"),
        (["--ports=3001:a", "--output", "loud"], 2, "Invalid value"),
        (["--ports=3001:a", "--action", "upsert"], 2, "Invalid value"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_an_exit_code(
    tmp_path: Path, arguments: list[str], code: int, problem: str
) -> None:
    (tmp_path / "t").write_text("tktunnel_x\n")
    done = run_command(tmp_path, "triggerkit", "tunnel", *arguments, settings={"NO_COLOR": "1"})
    assert done.returncode == code, done.stderr
    assert problem in done.stderr
    assert "hunter2" not in done.stderr


def test_the_commands_of_the_page_do_what_they_say(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    folder = tmp_path / "office"
    folder.mkdir()
    page = (ROOT / "docs" / "tunnel.md").read_text()
    server, on_laptop = re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    office = Office(folder, database_url, redis_url, SIGNING)
    # The endpoint and the consumer are the page's own.
    (folder / "triggerkit.toml").write_text("tasks = []\n")
    office.sql("DELETE FROM triggerkit.consumers")
    office.sql("DELETE FROM triggerkit.endpoints")
    office.sql("ALTER TABLE posts ADD updated_at timestamptz NOT NULL DEFAULT now()")
    for line in server.replace("\\\n", " ").splitlines():
        command, _, file = line.partition(" > ")
        said = office.triggerkit(*shlex.split(command)[1:])
        if file:
            (folder / file.strip()).write_text(said)
        if "signing secret" in said:
            office.settings["SIGNING"] = said.split()[-1]
    with (
        office.process("serve"),
        office.process("stream"),
        node_receiver(BEARER, office.settings["SIGNING"]) as app,
    ):
        office.until_serving()
        office.sql("INSERT INTO posts VALUES (1, 'of the page')")
        words = shlex.split(on_laptop)[2:]
        given = [w.replace("3001", str(app.port)) for w in words]
        given[given.index("wss://app.example.com")] = f"ws://127.0.0.1:{office.port}"
        with laptop(folder, *given) as tunnel:
            tunnel.wait_for("delivery")
            # Read by the backfill, too, if that came later.
            eventually(lambda: set(titles(app)) == {"of the page"}, 10, "the row")


def test_a_token_on_the_command_line_is_taken_with_a_warning(tmp_path: Path) -> None:
    token = f"tktunnel_{secrets.token_urlsafe(32)}"
    given = ["--ports=3001:a", "--server", "ws://127.0.0.1:1"]
    typed = run_command(tmp_path, "triggerkit", "tunnel", *given, "--token", token)
    assert "on the command line" in typed.stderr
    assert token not in typed.stderr
    kept = run_command(
        tmp_path, "triggerkit", "tunnel", *given, settings={"TRIGGERKIT_TUNNEL_TOKEN": token}
    )
    assert "on the command line" not in kept.stderr
    assert (typed.returncode, kept.returncode) == (4, 4)

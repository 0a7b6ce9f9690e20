"""What the deployment's files start, run as plain processes: their commands, settings and probes.

No container engine runs here: where the files name a host it is replaced by the tests' own, and
ports by free ones. All else is as the files say it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.acceptance.deployment import Described, of_compose, of_kubernetes, of_systemd
from tests.acceptance.project import (
    ROOT,
    clean_environment,
    copy_reference_project,
    eventually,
)
from tests.acceptance.test_deployment_files import VARIABLES
from tests.command_process import CommandProcess
from tests.ports import free_port
from tests.servers import Servers

#: Settings that say where something is that the files have elsewhere.
PORTS = ("TRIGGERKIT_PORT", "TRIGGERKIT_HEALTH_PORT")

WAYS: dict[str, Callable[[], list[Described]]] = {
    "compose": lambda: of_compose(VARIABLES),
    "kubernetes": of_kubernetes,
}


class Machine:
    """A machine with Postgres, Redis and a model, on which what is described is started."""

    def __init__(self, folder: Path, database_url: str, redis_url: str) -> None:
        self.folder = copy_reference_project(folder)
        self.database_url = database_url
        self._redis_url = redis_url
        self._model_port = free_port()
        self._public_port = free_port()
        self._programs = folder / "bin"
        self._programs.mkdir()
        # What a container has on its path.
        for name, words in (("python", ""), ("triggerkit", "-m triggerkit ")):
            program = self._programs / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n')
            program.chmod(0o755)

    def url(self, role: str | None = None) -> str:
        """The database, as a role."""
        return self.database_url if role is None else make_conninfo(self.database_url, user=role)

    def model(self) -> CommandProcess:
        """A server of embeddings, in place of OpenAI's."""
        words = ["triggerkit.embedded.embeddings", "--port", str(self._model_port)]
        return CommandProcess(self.folder, "model", words, {})

    def settings(self, described: Described, first_serve: bool = False) -> dict[str, str]:
        """The settings that are described, where the machine has them."""
        own = dict(described.settings)
        for name in ("DATABASE_URL", "TRIGGERKIT_STATE_URL"):
            if name in own:
                role = conninfo_to_dict(own[name])["user"]
                own[name] = self.url(None if role == "app" else str(role))
        own["REDIS_URL"] = self._redis_url
        assert "TRIGGERKIT_PUBLIC_URL" in own
        own["TRIGGERKIT_HOST"] = own["TRIGGERKIT_HEALTH_HOST"] = "127.0.0.1"
        own["TRIGGERKIT_PUBLIC_URL"] = f"http://127.0.0.1:{self._public_port}"
        for name in PORTS:
            own[name] = str(free_port())
        if first_serve:
            own["TRIGGERKIT_PORT"] = str(self._public_port)
        own["OPENAI_API_KEY"] = "unused"
        own["OPENAI_BASE_URL"] = f"http://127.0.0.1:{self._model_port}/v1"
        own["EMBEDDING_DIMENSIONS"] = "256"
        own["EMBEDDING_MODEL"] = "local"
        return own

    def run(self, words: list[str], settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as a container would."""
        return subprocess.run(
            words, cwd=self.folder, env=self._environment(settings), capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip

    def _environment(self, settings: dict[str, str]) -> dict[str, str]:
        environment = {**clean_environment(), "PYTHONPATH": str(ROOT), **settings}
        environment["PATH"] = f"{self._programs}:{environment['PATH']}"
        return environment


@pytest.fixture
def machine(tmp_path: Path, servers: Servers, redis_url: str) -> Iterator[Machine]:
    url = servers.new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA triggerkit CASCADE")
    yield Machine(tmp_path, url, redis_url)
    servers.drop_database(url)
    for role in ("triggerkit_capture", "triggerkit_state"):
        with psycopg.connect(servers.postgres.url, autocommit=True) as connection:
            connection.execute(f"DROP ROLE IF EXISTS {role}")


def make_roles(machine: Machine) -> None:
    """What docs/deploy.md has an administrator do: the tables, and the roles."""
    settings = {"DATABASE_URL": machine.database_url, "EMBEDDING_DIMENSIONS": "256"}
    settings["OPENAI_API_KEY"] = "unused"
    made = machine.run(["python", "-m", "app.setup"], settings)
    assert made.returncode == 0, made.stderr
    printed = machine.run(["triggerkit", "roles"], settings)
    assert printed.returncode == 0, printed.stderr
    with psycopg.connect(machine.database_url) as connection:
        connection.execute(printed.stdout.encode())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", WAYS)
def test_all_that_is_described_works_together(machine: Machine, way: str) -> None:
    described = WAYS[way]()
    once = [one for one in described if one.name in ("setup", "apply")]
    lasting = [one for one in described if one not in once]
    with ExitStack() as stack:
        stack.enter_context(machine.model())
        if way == "kubernetes":
            make_roles(machine)
        for one in once:
            done = machine.run(one.command, machine.settings(one))
            assert done.returncode == 0, done.stdout + done.stderr
        # Each twice, though there may be more of it: in no order that would help.
        started = []
        for one in sorted(lasting, key=lambda one: one.name, reverse=True):
            for number in range(min(2, one.copies)):
                settings = machine.settings(one, one.name == "serve" and number == 0)
                process = CommandProcess(
                    machine.folder, f"{one.name}-{number}", one.command, settings
                )
                started.append((one, stack.enter_context(process), settings))
        for one, process, settings in started:
            ports = {
                int(one.settings[name]): int(settings[name]) for name in PORTS if name in settings
            }
            port = settings["TRIGGERKIT_PORT" if one.name == "serve" else "TRIGGERKIT_HEALTH_PORT"]
            process.until_ready(60, int(port))
            for path, asked in one.probes:
                assert process.probe(path, ports[asked])[0] == 200
            if one.check:
                # The command of compose asks on the port that it knows.
                healthy = machine.run(_with_ports(one.check, ports), settings)
                assert healthy.returncode == 0, healthy.stderr
        with psycopg.connect(machine.database_url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO public.posts (title, body) VALUES ('A new post', 'with a text')"
            )
            left = (
                "SELECT count(*) FROM public.posts p LEFT JOIN public.post_embeddings e "
                "ON e.post_id = p.id WHERE e.post_id IS NULL"
            )
            eventually(
                lambda: connection.execute(left).fetchone() == (0,),
                120,
                lambda: "\n".join(process.said()[-1500:] for _, process, _ in started),
            )
        for _, process, _ in started:
            process.terminate()
        assert [process.wait(60) for _, process, _ in started] == [0] * len(started)


def _with_ports(words: list[str], ports: dict[int, int]) -> list[str]:
    for before, now in ports.items():
        words = [word.replace(f":{before}/", f":{now}/") for word in words]
    return words


def test_the_units_start_what_compose_starts() -> None:
    by_kind = {one.name.partition("@")[0].removeprefix("triggerkit-"): one for one in of_systemd()}
    assert set(by_kind) == {"serve", "stream", "worker"}
    for one in of_compose(VARIABLES):
        if one.name != "setup":
            assert by_kind[one.name].command == one.command

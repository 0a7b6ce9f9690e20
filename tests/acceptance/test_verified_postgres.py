"""Postgres over TLS that is verified (`sslmode=verify-full`): capture and state, and what is told
of certificates that do not fit."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from tests.acceptance.project import eventually, run_command
from tests.acceptance.running_system import System
from tests.capture.rig.programs import Unavailable, programs_with_tls
from tests.capture.rig.server import Server
from tests.certificates import Authority
from tests.ports import free_port
from triggerkit.settings import Settings
from triggerkit.supervisor.checks import run_checks

#: The sessions of ours at the server, and whether each speaks TLS.
SESSIONS = """
SELECT DISTINCT application_name, s.ssl FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid)
WHERE application_name LIKE 'triggerkit%%' AND client_addr IS NOT NULL
"""


@dataclass(frozen=True)
class Secure:
    """A server whose certificate is for localhost, and the authority that signed it."""

    server: Server
    port: int
    trusted: Path
    other: Path

    def url(self, database: str, host: str = "localhost", trusted: Path | None = None) -> str:
        options = f"sslmode=verify-full&sslrootcert={trusted or self.trusted}"
        return f"postgresql://postgres:hunter2@{host}:{self.port}/{database}?{options}"

    def new_database(self) -> str:
        return self.url(str(conninfo_to_dict(self.server.new_database())["dbname"]))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("tls")
    try:
        version, programs = programs_with_tls()
    except Unavailable as reason:
        if os.environ.get("TRIGGERKIT_TEST_REQUIRE") == "all":
            pytest.fail(str(reason))
        pytest.skip(str(reason))
    authority, other = (Authority.make(folder, name) for name in ("authority", "another"))
    server, port = Server(version, programs), free_port()
    pair = server.file("pair.pem", authority.sign(folder, "localhost").read_bytes())
    server.start(
        listen_addresses="localhost",
        port=str(port),
        ssl="on",
        ssl_cert_file=str(pair),
        ssl_key_file=str(pair),
    )
    yield Secure(server, port, authority.file, other.file)
    server.stop()


@pytest.mark.timeout(120)
def test_a_system_captures_and_keeps_its_state_over_tls(
    secure: Secure, tmp_path: Path, settings: Settings
) -> None:
    source, state = secure.new_database(), secure.new_database()
    given = {**settings.environment(), "DATABASE_URL": source, "TRIGGERKIT_STATE_URL": state}
    system = System(tmp_path, given)
    try:
        applied = system.command("apply")
        assert applied.returncode == 0, applied.stderr
        for name in ("serve", "worker", "stream"):
            system.start(name)
        key = system.insert("a name")
        eventually(lambda: system.has_effect(key), 30, system.status)
        checked = system.command("check")
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert "hunter2" not in checked.stdout
        sessions = dict(system.execute(SESSIONS))
        assert {"triggerkit stream", "triggerkit heartbeat"} <= sessions.keys()
        assert all(sessions.values())
        shown = system.command("psql", "-Atc", "SELECT ssl FROM pg_stat_ssl WHERE pid = "
                               "pg_backend_pid()")  # fmt: skip
        assert shown.stdout == "t\n", shown.stderr
    finally:
        system.stop_all()


def told(settings: Settings, tmp_path: Path, setting: str, url: str) -> str:
    """What `check` and `apply` say of a URL, which is the same."""
    given = {**settings.environment(), setting: url}
    checked, applied = (
        run_command(tmp_path, "triggerkit", command, settings=given)
        for command in ("check", "apply")
    )
    assert applied.returncode == 4, applied.stderr
    assert applied.stderr.count("\n") == 1
    assert "hunter2" not in checked.stdout + checked.stderr + applied.stderr
    assert applied.stderr.strip() in checked.stderr + checked.stdout or setting != "DATABASE_URL"
    return applied.stderr


@pytest.mark.parametrize("setting", ["DATABASE_URL", "TRIGGERKIT_STATE_URL"])
def test_what_is_wrong_with_a_certificate_is_told(
    secure: Secure, tmp_path: Path, settings: Settings, setting: str
) -> None:
    (tmp_path / "tasks.py").write_text("")
    said = told(settings, tmp_path, setting, secure.url("postgres", trusted=secure.other))
    assert "the server's certificate is not trusted: set sslrootcert in the URL" in said
    said = told(settings, tmp_path, setting, secure.url("postgres", host="127.0.0.1"))
    assert "for another name: write the host in the URL as the certificate does" in said
    said = told(settings, tmp_path, setting, secure.url("postgres", trusted=tmp_path / "missing"))
    assert "the file of authorities that are trusted cannot be read: set sslrootcert" in said


def test_the_state_of_a_check_is_told_too(secure: Secure, settings: Settings) -> None:
    url = SecretStr(secure.url("postgres", trusted=secure.other))
    update = {"triggerkit_state_url": url}
    found = asyncio.run(run_checks(settings.model_copy(update=update), []))
    (check,) = [check for check in found if check.name == "state database reachable"]
    assert check.failed
    assert "certificate is not trusted" in check.detail


def test_a_server_without_tls_is_told(tmp_path: Path, settings: Settings, secure: Secure) -> None:
    secure.server.restart(ssl="off")
    try:
        said = told(settings, tmp_path, "DATABASE_URL", secure.url("postgres"))
        assert "the server speaks no TLS there: turn it on at the server" in said
    finally:
        secure.server.restart()
    with psycopg.connect(secure.url("postgres")) as connection:
        assert connection.info.dbname == "postgres"

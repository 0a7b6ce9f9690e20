"""The embedded Postgres: starts fast, keeps its data, recovers, and says why it cannot start."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from tests.integration.embedded.running import execute, query, running
from triggerkit.embedded import programs
from triggerkit.embedded.account import Account, running_as_root, unprivileged_account
from triggerkit.embedded.folders import lock_home
from triggerkit.embedded.postgres import EmbeddedPostgres
from triggerkit.errors import AlreadyRunning, CannotConnect, ConfigurationError

SECOND_START_S = 2.0


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

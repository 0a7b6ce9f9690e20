"""The folder `.triggerkit` is its user's alone: nobody else says where secrets go."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from triggerkit.errors import PreflightFailed
from triggerkit.supervisor.dev.folder import StateFolder


@pytest.fixture(autouse=True)
def wide_open() -> Iterator[None]:
    """The umask that lets everybody write what is made."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_nobody_else_may_write_what_is_made_whatever_the_umask(tmp_path: Path) -> None:
    with StateFolder(tmp_path) as folder:
        folder.secrets()
        (folder.path / "made later").touch()
        for path in [folder.path, *folder.path.iterdir()]:
            assert mode_of(path) & 0o022 == 0
        assert mode_of(folder.path / "secrets.json") == 0o600


def test_a_folder_that_everybody_may_write_is_closed(tmp_path: Path) -> None:
    (tmp_path / ".triggerkit").mkdir(mode=0o777)
    with StateFolder(tmp_path) as folder:
        assert mode_of(folder.path) == 0o755


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / ".triggerkit").symlink_to(elsewhere)
    with pytest.raises(PreflightFailed, match="symbolic link"), StateFolder(tmp_path):
        pass
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("name", ["dev.lock", ".gitignore"])
def test_links_in_it_are_not_followed(tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    (tmp_path / ".triggerkit").mkdir()
    (tmp_path / ".triggerkit" / name).symlink_to(target)
    try:
        with StateFolder(tmp_path):
            pass
    except PreflightFailed:
        pass
    assert not target.exists()


def test_a_second_user_is_told_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".triggerkit").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PreflightFailed, match="belongs to another user"), StateFolder(tmp_path):
        pass

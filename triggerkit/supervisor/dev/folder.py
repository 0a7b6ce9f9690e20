"""The folder `.triggerkit`: the lock of the one `dev` in it, its secrets and its state."""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, Self

import orjson

from triggerkit.errors import AlreadyRunning, PreflightFailed
from triggerkit.settings import STATE_DIR, running_dev

#: Secrets that `dev` makes for itself when they are not set.
GENERATED = ("TRIGGERKIT_WEBHOOK_SECRET", "TRIGGERKIT_SECRET_KEY", "TRIGGERKIT_ENCRYPTION_KEY")


class StateFolder:
    """Held by one `dev` at a time, as long as its process lives."""

    def __init__(self, project: Path) -> None:
        self.path = project / STATE_DIR
        self._project = project
        self._lock_fd = -1

    def __enter__(self) -> Self:
        """Take the folder.

        Raises:
            AlreadyRunning: another `dev` has it; the message names its process.
            PreflightFailed: it cannot be written.
        """
        try:
            self._make()
        except OSError as error:
            raise PreflightFailed(
                f"triggerkit dev keeps its data in {self.path}, which cannot be written "
                f"({error.strerror or error}): make the project's folder writable for this user"
            ) from None
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock_fd)
            running = running_dev(self._project)
            pid = f" (process {running['pid']})" if running else ""
            raise AlreadyRunning(
                f"another triggerkit dev runs in this folder{pid}; stop it first"
            ) from None
        return self

    def _make(self) -> None:
        # What `dev` and its children make is nobody else's to write.
        os.umask(os.umask(0o077) | 0o022)
        with suppress(FileExistsError):
            self.path.mkdir(mode=0o755)
        self._require_own()
        with suppress(FileExistsError):
            fd = os.open(self.path / ".gitignore", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            with os.fdopen(fd, "w") as file:
                file.write("*\n")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        self._lock_fd = os.open(self.path / "dev.lock", flags, 0o600)

    def _require_own(self) -> None:
        """Refuse a folder through which somebody else could say where secrets go."""
        found = self.path.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise PreflightFailed(
                f"{self.path} is a symbolic link: triggerkit dev keeps secrets there; remove it"
            )
        us = os.geteuid()
        if us and found.st_uid != us:
            raise PreflightFailed(
                f"{self.path} belongs to another user (id {found.st_uid}), as does the triggerkit "
                "dev that made it; use a copy of the project, or let that user run it"
            )
        if found.st_mode & 0o022:
            self.path.chmod(stat.S_IMODE(found.st_mode) & ~0o022)

    def __exit__(self, *exc_info: object) -> None:
        self._state_file.unlink(missing_ok=True)
        os.close(self._lock_fd)

    def secrets(self) -> dict[str, str]:
        """Return the generated secrets, made at the first start and kept, readable by the owner
        alone."""
        path = self.path / "secrets.json"
        known: dict[str, str] = orjson.loads(path.read_bytes()) if path.exists() else {}
        made = {name: known.get(name) or token_urlsafe(32) for name in GENERATED}
        if made != known:
            _write_private(path, orjson.dumps(made))
        return made

    def write_state(self, state: dict[str, Any]) -> None:
        """Publish the state of this `dev` for other commands in the folder; it holds secrets."""
        _write_private(self._state_file, orjson.dumps(state))

    @property
    def _state_file(self) -> Path:
        return self.path / "dev.json"


def _write_private(path: Path, content: bytes) -> None:
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    unfinished.replace(path)

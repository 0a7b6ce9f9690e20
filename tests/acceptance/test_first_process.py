"""A command as the first process of a container: what it has no handler for does not end it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.project import ROOT, clean_environment, eventually
from tests.conftest import WEBHOOK_SECRET

ALONE = ("unshare", "--pid", "--fork", "--kill-child")

IS_POSSIBLE = (
    shutil.which("unshare") is not None
    and subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
)


@pytest.mark.skipif(not IS_POSSIBLE, reason="no namespace of processes may be made here")
@pytest.mark.parametrize(("command", "code"), [("serve", 128 + signal.SIGTERM), ("worker", 0)])
def test_it_ends_when_it_is_asked_to_as_it_begins(
    tmp_path: Path, database_url: str, redis_url: str, command: str, code: int
) -> None:
    (tmp_path / "triggerkit.toml").write_text('tasks = ["jobs"]\n')
    (tmp_path / "jobs.py").write_text("import time\nopen('begun', 'w')\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [*ALONE, sys.executable, "-m", "triggerkit", command],
        cwd=tmp_path,
        env={
            **clean_environment(),
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "TRIGGERKIT_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "TRIGGERKIT_PORT": "0",
        },
    )
    try:
        eventually((tmp_path / "begun").exists, 60, "the project is loaded")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        os.kill(int(children), signal.SIGTERM)
        assert process.wait(20) == code
    finally:
        process.kill()
        process.wait()

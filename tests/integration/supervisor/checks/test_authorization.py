"""The webhook secret, and the key that a server for others needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.integration.supervisor.checks.checking import checked
from triggerkit.settings import Settings


def test_a_webhook_secret_that_is_not_set(settings: Settings, tmp_path: Path) -> None:
    bare = settings.model_copy(update={"triggerkit_webhook_secret": None})
    check = checked(bare)["webhook secret"]
    assert check.failed
    programs = str(Path(sys.executable).parent)
    subprocess.run(
        ["/bin/sh", "-c", check.remedy or ""],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        check=True,
    )
    name, _, value = (tmp_path / ".env").read_text().strip().partition("=")
    generated = Settings.parse({name: value}).triggerkit_webhook_secret
    again = settings.model_copy(update={"triggerkit_webhook_secret": generated})
    assert checked(again)["webhook secret"].ok


def test_a_server_for_others_needs_a_key(settings: Settings) -> None:
    assert "secret key" not in checked(settings)
    assert checked(settings.model_copy(update={"triggerkit_host": "0.0.0.0"}))["secret key"].failed

"""`triggerkit serve` as a process that a test may kill."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.serving import Site
from tests.integration.web.api.described import KEY
from triggerkit.settings import Settings


@contextmanager
def serve_process(settings: Settings, folder: Path) -> Iterator[tuple[Site, int]]:
    """`triggerkit serve` as a process: its site and its id."""
    (folder / "triggerkit.toml").write_text("tasks = []\n")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    assert settings.database_url
    assert settings.redis_url
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TRIGGERKIT_")},
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "TRIGGERKIT_WEBHOOK_SECRET": "a webhook secret for the tests only",
        "TRIGGERKIT_SECRET_KEY": KEY,
        "TRIGGERKIT_PORT": str(port),
        "PYTHONUNBUFFERED": "1",
        **{name: secret.get_secret_value() for name, secret in settings.kafka.items()},
    }
    command = [sys.executable, "-m", "triggerkit", "serve"]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert process.stdout
        assert any(b"ready" in line for line in process.stdout)
        yield Site(port), process.pid
    finally:
        process.kill()
        process.communicate()

"""`serve` at SIGTERM: not ready at once, takes requests for a while longer, and ends well."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from tests.acceptance.project import eventually
from tests.command_process import CommandProcess
from tests.conftest import WEBHOOK_SECRET
from tests.ports import free_port
from triggerkit.settings import Settings

APP = """
import asyncio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def slow(request):
    await asyncio.sleep(float(request.path_params["seconds"]))
    return PlainTextResponse('"done"')

app = Starlette(routes=[Route("/slow/{seconds}", slow)])
"""


def serving(folder: Path, settings: Settings, **more: str) -> tuple[CommandProcess, int]:
    assert settings.database_url
    assert settings.redis_url
    (folder / "triggerkit.toml").write_text('app = "own:app"\ntasks = []\n')
    (folder / "own.py").write_text(APP)
    port = free_port()
    given = {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "TRIGGERKIT_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "TRIGGERKIT_PORT": str(port),
        **more,
    }
    return CommandProcess(folder, "serve", ["triggerkit", "serve"], given), port


def test_requests_are_taken_while_load_balancers_learn_of_the_end(
    tmp_path: Path, settings: Settings
) -> None:
    process, port = serving(tmp_path, settings, TRIGGERKIT_DRAIN="3s")
    with process:
        process.until_ready(port=port)
        asked_at = time.monotonic()
        process.terminate()
        eventually(lambda: process.probe("/readyz", port)[0] == 503, 2, "it is not ready")
        assert process.probe("/readyz", port)[1]["missing"] == ["stopping"]
        assert process.probe("/healthz", port) == (200, {"alive": True})
        assert process.probe("/slow/0.1", port)[0] == 200
        assert process.wait() == 0
        assert time.monotonic() - asked_at > 2.9


def test_a_second_signal_ends_the_wait(tmp_path: Path, settings: Settings) -> None:
    process, port = serving(tmp_path, settings, TRIGGERKIT_DRAIN="10m")
    with process:
        process.until_ready(port=port)
        process.process.send_signal(signal.SIGINT)
        eventually(lambda: process.probe("/readyz", port)[0] == 503, 5, "it is not ready")
        process.process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


@pytest.mark.parametrize(("grace", "answered"), [("10s", True), ("1s", False)])
def test_what_is_under_way_has_the_grace_to_end(
    tmp_path: Path, settings: Settings, grace: str, answered: bool
) -> None:
    process, port = serving(tmp_path, settings, TRIGGERKIT_GRACE=grace)
    with process:
        process.until_ready(port=port)

        def ask() -> None:
            answers.append(process.probe("/slow/2.5", port)[0])

        answers: list[int] = []
        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.5)  # the request is under way
        process.terminate()
        assert process.wait(20) == 0
        asking.join()
        assert (answers == [200]) is answered

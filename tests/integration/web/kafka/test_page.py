"""The page on events: what its examples do."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.conformance.events.world import EventsWorld, prepare
from tests.integration.serving import serving
from triggerkit.events.topics import Topic, store_topics
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.web.application import Application


def test_the_examples_of_the_page_do_what_they_say(settings: Settings, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        assert os.environ.get("TRIGGERKIT_TEST_REQUIRE") != "all", "curl is missing"
        pytest.skip("needs curl")
    prepare(settings)
    asyncio.run(_declare(settings))
    page = (ROOT / "docs" / "events.md").read_text()
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    with serving(Application(settings, [], None)) as site:
        EventsWorld(settings, site).write(range(1, 41))
        programs = Path(sys.executable).parent
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace(":8000", f":{site.port}")],
            cwd=tmp_path,
            env={"PATH": f"{programs}:{os.environ['PATH']}", "DATABASE_URL": settings.source_dsn},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    # Fetched in a page, in the terminal and as JSON; consumed once, and committed.
    assert done.stdout.count('"event\\":\\"inserted') >= 80
    assert '{"result":"Success","status":200}' in done.stdout
    assert '"instances":[{"name":"instance-1"' in done.stdout
    assert done.stdout.endswith("removed reader\n")


async def _declare(settings: Settings) -> None:
    async with await connect(settings.state_dsn, "test") as state:
        topic = Topic("triggerkit.app.posts", "app", "public", "posts", database_id=1)
        await store_topics(state, [topic], [])
        await state.execute("DELETE FROM triggerkit.event_users")

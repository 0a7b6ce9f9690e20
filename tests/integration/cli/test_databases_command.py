"""`triggerkit databases`: what is captured, as a person or a program reads it."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from typer.testing import CliRunner

from tests.integration.pipeline import declare, execute
from tests.receiver import Receiver
from triggerkit.cli.main import application
from triggerkit.consumers.definition import changes
from triggerkit.errors import TriggerkitError
from triggerkit.settings import Settings


def test_databases_are_listed_and_shown(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, "CREATE TABLE items (id int PRIMARY KEY)")
            await declare(settings, receiver, changes("items"))

    asyncio.run(scenario())
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    run = CliRunner().invoke
    [found] = orjson.loads(run(application("databases"), ["databases", "list", "--json"]).output)
    assert (found["log_first_position"], found["log_last_position"]) == (1, 0)
    name = found["name"]
    assert name in run(application("databases"), ["databases", "list"]).output
    shown = run(application("databases"), ["databases", "show", name]).output
    assert found["slot_name"] in shown
    unknown = run(application("databases"), ["databases", "show", "shop"])
    assert isinstance(unknown.exception, TriggerkitError)
    assert name in str(unknown.exception)

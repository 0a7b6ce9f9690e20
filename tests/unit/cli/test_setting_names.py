"""Settings that nobody reads are told of, with the one that was meant."""

from __future__ import annotations

import re

import pytest
import typer

from tests import ROOT
from triggerkit.cli.main import application
from triggerkit.cli.setting_names import unknown_settings


def told(*names: str) -> list[str]:
    return unknown_settings(names, typer.main.get_command(application()))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TRIGGERKIT_PROT", "TRIGGERKIT_PORT"),
        ("TRIGGERKIT_WEBHOOK_SECRETS", "TRIGGERKIT_WEBHOOK_SECRET"),
        ("TRIGGERKIT_TASK", "TRIGGERKIT_TASKS"),
        ("TRIGGERKIT_REDIS_URL", "REDIS_URL"),
    ],
)
def test_a_misspelt_setting_is_told_with_the_one_that_was_meant(name: str, meant: str) -> None:
    assert told(name) == [f"unknown {name}; did you mean {meant}?"]


def test_one_that_is_like_none_is_told_too() -> None:
    [line] = told("TRIGGERKIT_ZZZZZZZZ")
    assert line.startswith("unknown TRIGGERKIT_ZZZZZZZZ: nothing reads it")


def test_what_kubernetes_says_of_services_and_other_programs_settings_are_left_alone() -> None:
    names = ["TRIGGERKIT_SERVICE_HOST", "TRIGGERKIT_WEB_PORT_8000_TCP_ADDR", "DATABASE_URLS"]
    assert told(*names, "TRIGGERKIT_WEB_SERVICE_PORT", "TRIGGERKIT_WEB_PORT") == []


def test_every_name_that_the_package_has_is_known() -> None:
    texts = [path.read_text() for path in (ROOT / "triggerkit").rglob("*.py")]
    names = {name for text in texts for name in re.findall(r'"(TRIGGERKIT_[A-Z_]+[A-Z])"', text)}
    assert len(names) > 10
    assert told(*names) == []

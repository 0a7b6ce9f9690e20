"""Twelve causes planted in a running system: each is found from the overview in three clicks."""

from __future__ import annotations

from time import monotonic

import pytest

from tests.acceptance.causes import CAUSES, Cause, repair
from tests.acceptance.running_system import System
from tests.browser.reader import Reader

#: What the page has to say, by the code that `why` gives.
SAID = {
    "slot_missing": "is gone",
    "not_published": "not in the publication",
    "filtered": "name != draft",
    "endpoint_unauthorized": "401",
    "endpoint_down": "connect",
    "parked": "is not welcome",
    "key_held": "executing",
    "queue_paused": "paused",
    "no_worker": "no worker",
    "failed": "no such price",
    "api_away": "429",
    "no_text": "nothing to make one of",
}


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)
def test_the_cause_is_found_from_the_overview_in_three_clicks(
    system: System, reader: Reader, cause: Cause
) -> None:
    system.be_well()
    key = cause.plant(system)
    try:
        find(reader, f"public.items {key}", SAID[cause.code], cause.within_s + 5)
    finally:
        repair(system, cause, key)


def find(reader: Reader, row: str, text: str, within_s: float) -> None:
    """Wait until the page that the search box of the overview leads to has a text."""
    until = monotonic() + within_s
    while True:
        reader.open("/")
        reader.page.get_by_label("Why has a row no effect?").fill(row)
        reader.page.get_by_role("button", name="Why?").click()
        said = reader.page.get_by_role("main").inner_text()
        if text in said:
            return
        assert monotonic() < until, said

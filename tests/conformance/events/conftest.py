"""Events, in the log and in Kafka, and the API over them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.events.world import EventsWorld, events_world
from triggerkit.settings import Settings


@pytest.fixture(params=["log", "kafka"])
def world(settings: Settings, request: pytest.FixtureRequest) -> Iterator[EventsWorld]:
    """Events, and the API over them."""
    with events_world(request.param, settings, request) as world:
        yield world

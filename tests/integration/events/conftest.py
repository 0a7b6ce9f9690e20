"""Fixtures of the tests of events."""

from __future__ import annotations

import pytest

from tests.integration.events.written import Topics, with_kafka
from tests.kafka import KafkaServer
from triggerkit.settings import Settings


@pytest.fixture
def kafka(settings: Settings, kafka_server: KafkaServer) -> Settings:
    """Settings that lead to the test's database and to the real Kafka."""
    return with_kafka(settings, kafka_server.settings())


@pytest.fixture
def written(kafka: Settings, kafka_server: KafkaServer) -> Topics:
    """The topics of the test's database."""
    return Topics(kafka_server, kafka)

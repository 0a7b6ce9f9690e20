"""Settings that begin with KAFKA_ are the client's properties, but for those that keep events."""

from __future__ import annotations

import pytest

from triggerkit.errors import ConfigurationError
from triggerkit.events.kafka.client import admin_properties, producer_properties
from triggerkit.settings import Settings

GIVEN = {
    "KAFKA_BOOTSTRAP_SERVERS": "broker:9092",
    "KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
    "KAFKA_SASL_PASSWORD": "a secret of the test",
    "KAFKA_SSL_KEY_LOCATION": "/etc/key.pem",
    "KAFKA_HEAP_OPTS": "-Xmx1G",
    "KAFKA_COMPRESSION_TYPE": "zstd",
}


def test_properties_have_the_names_of_the_settings() -> None:
    found = producer_properties(Settings.parse(GIVEN).kafka)
    assert found["bootstrap.servers"] == "broker:9092"
    assert found["sasl.password"] == "a secret of the test"
    assert found["ssl.key.location"] == "/etc/key.pem"
    assert found["compression.type"] == "zstd"
    assert "heap.opts" not in found
    assert (found["enable.idempotence"], found["acks"]) == ("true", "all")
    assert (found["partitioner"], found["message.timeout.ms"]) == ("murmur2_random", "0")


@pytest.mark.parametrize(
    "name",
    [
        "KAFKA_BROKER_SERVICE_HOST",
        "KAFKA_BROKER_SERVICE_PORT_CLIENT",
        "KAFKA_BROKER_PORT",
        "KAFKA_CLIENT_PORT_9092_TCP_ADDR",
    ],
)
def test_what_kubernetes_tells_of_services_is_no_property(name: str) -> None:
    given = {**GIVEN, name: "tcp://10.0.0.1:9092"}
    assert producer_properties(Settings.parse(given).kafka) == producer_properties(
        Settings.parse(GIVEN).kafka
    )


def test_a_client_that_asks_has_nothing_of_producers() -> None:
    found = admin_properties(Settings.parse(GIVEN).kafka)
    assert "compression.type" not in found
    assert found["security.protocol"] == "sasl_ssl"


def test_there_are_none_without_bootstrap_servers() -> None:
    assert Settings.parse({"KAFKA_SASL_USERNAME": "somebody"}).kafka == {}


def test_the_settings_go_on_to_child_processes_and_show_no_secret() -> None:
    settings = Settings.parse(GIVEN)
    assert Settings.parse(settings.environment()).kafka == settings.kafka
    assert "a secret of the test" not in f"{settings!r} {settings.kafka}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KAFKA_ENABLE_SSL_CERTIFICATE_VERIFICATION", "false"),
        ("KAFKA_SSL_ENDPOINT_IDENTIFICATION_ALGORITHM", "none"),
        ("KAFKA_ACKS", "1"),
        ("KAFKA_MESSAGE_TIMEOUT_MS", "1000"),
        ("KAFKA_PARTITIONER", "random"),
    ],
)
def test_what_would_lose_events_or_show_them_is_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} cannot be set"):
        producer_properties(Settings.parse({**GIVEN, name: value}).kafka)

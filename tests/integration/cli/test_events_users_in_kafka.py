"""Users of the events who are users of Kafka too, by the same name and password."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from tests.conformance.events.world import basic
from tests.integration.events.written import TABLE, Topics, with_kafka, writing
from tests.integration.pipeline import execute
from tests.integration.serving import serving
from tests.kafka import KafkaServer
from tests.ports import free_port
from triggerkit.cli.main import application
from triggerkit.settings import Settings
from triggerkit.web.application import Application


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The command's environment, without a Kafka."""
    monkeypatch.setenv("DATABASE_URL", settings.source_dsn)
    monkeypatch.delenv("TRIGGERKIT_STATE_URL", raising=False)
    return monkeypatch


def run(*arguments: str) -> tuple[str, str]:
    """Run `events users`; what it prints, and its warnings."""
    result = CliRunner().invoke(application("events"), ["events", "users", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout, result.stderr


def test_a_user_is_made_and_removed_there_too(
    environment: pytest.MonkeyPatch, kafka_server: KafkaServer
) -> None:
    for name, value in kafka_server.settings().items():
        environment.setenv(name, value)
    _, warnings = run("add", "alice", "--json")
    assert warnings == ""
    assert _mechanisms(kafka_server.admin, "alice") == {"SCRAM_SHA_256", "SCRAM_SHA_512"}
    assert run("remove", "alice") == ("removed alice\n", "")
    assert _mechanisms(kafka_server.admin, "alice") == set()


def test_who_was_added_reads_from_kafka_and_over_rest_by_one_password(
    environment: pytest.MonkeyPatch, settings: Settings, kafka_server: KafkaServer
) -> None:
    tls = with_kafka(settings, kafka_server.tls_settings_of("admin"))
    topics = Topics(kafka_server, settings)

    async def scenario() -> None:
        async with writing(tls, TABLE):
            await execute(tls, "INSERT INTO posts VALUES (1, 'a')")
            await topics.until(1)

    asyncio.run(scenario())
    for name, value in kafka_server.tls_settings_of("admin").items():
        environment.setenv(name, value)
    printed, warnings = run("add", "dora", "--json")
    assert warnings == ""
    password = orjson.loads(printed)["password"]
    kafka_server.allow_reading("dora", topics.name(), "readers")
    with serving(Application(settings, [], None)) as site:
        answer = site.request("GET", "/kafka/topics", None, basic("dora", password))
    assert topics.name() in answer.json
    for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
        properties = kafka_server.tls_settings_of("dora", password, mechanism)
        found = _first(properties, topics.name())
        assert (found.key(), b'"inserted"' in (found.value() or b"")) == (b"1", True)
    with pytest.raises(KafkaException) as refused:
        _first(kafka_server.tls_settings_of("dora", "no", "SCRAM-SHA-512"), topics.name())
    assert refused.value.args[0].name() == "_AUTHENTICATION"


def _first(settings: dict[str, str], topic: str) -> Message:
    """The first message that a plain consumer reads."""
    properties = {
        n.removeprefix("KAFKA_").lower().replace("_", "."): v for n, v in settings.items()
    }
    errors: list[KafkaError] = []
    consumer = Consumer(
        {**properties, "group.id": "readers", "error_cb": errors.append, "log_level": "2"}
    )
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in range(8)])
        for _ in range(60):
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                return message
            for error in errors:
                if error.name() == "_AUTHENTICATION":
                    raise KafkaException(error)
        raise AssertionError(f"nothing was read: {errors}")
    finally:
        consumer.close()


def test_where_it_is_not_permitted_the_user_reads_by_rest_alone(
    environment: pytest.MonkeyPatch, kafka_server: KafkaServer
) -> None:
    for name, value in kafka_server.settings_of("guest").items():
        environment.setenv(name, value)
    printed, warnings = run("add", "bob", "--json")
    assert orjson.loads(printed)["password"]
    assert warnings.startswith("warning: bob reads by REST alone, not from Kafka: Kafka: ")
    assert "the cluster does not allow it" in warnings


def test_without_a_broker_the_user_is_told_and_made_all_the_same(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{free_port()}")
    printed, warnings = run("add", "carol", "--json")
    assert orjson.loads(printed)["name"] == "carol"
    assert "carol reads by REST alone" in warnings
    assert "the broker" in warnings
    assert [user["name"] for user in orjson.loads(run("list", "--json")[0])] == ["carol"]


def test_a_user_that_kafka_has_already_keeps_its_password_and_stays(
    environment: pytest.MonkeyPatch, kafka_server: KafkaServer
) -> None:
    for name, value in kafka_server.settings().items():
        environment.setenv(name, value)
    theirs = "the password of another team"
    kafka_server.set_password("billing", theirs)
    printed, warnings = run("add", "billing", "--json")
    assert warnings.startswith("warning: billing reads by REST alone, not from Kafka: ")
    assert "Kafka has a user of this name already" in warnings
    assert _lets_in(kafka_server, "billing", theirs)
    assert not _lets_in(kafka_server, "billing", orjson.loads(printed)["password"])
    assert run("remove", "billing") == ("removed billing\n", "")
    assert _lets_in(kafka_server, "billing", theirs)


def test_the_user_by_which_events_are_written_is_not_given_another_password(
    environment: pytest.MonkeyPatch, kafka_server: KafkaServer
) -> None:
    for name, value in kafka_server.settings_of("admin").items():
        environment.setenv(name, value)
    _, warnings = run("add", "admin", "--json")
    assert "Kafka has a user of this name already" in warnings
    assert _mechanisms(kafka_server.admin, "admin") == set()


def _lets_in(server: KafkaServer, user: str, password: str) -> bool:
    settings = server.settings_of(user, password, "SCRAM-SHA-512")
    properties: dict[str, Any] = {
        n.removeprefix("KAFKA_").lower().replace("_", "."): v for n, v in settings.items()
    }
    errors: list[KafkaError] = []
    properties |= {"error_cb": errors.append, "log_level": "2"}
    admin = AdminClient(properties)
    try:
        return bool(admin.list_topics(timeout=5).brokers)
    except KafkaException:
        admin.poll(0.1)
        assert any(error.name() == "_AUTHENTICATION" for error in errors), errors
        return False


def _mechanisms(admin: AdminClient, name: str) -> set[str]:
    asked: Any = admin.describe_user_scram_credentials([name])
    try:
        found = asked[name].result(timeout=10)
    except KafkaException as error:
        assert error.args[0].name() == "RESOURCE_NOT_FOUND"  # noqa: PT017
        return set()
    return {info.mechanism.name for info in found.scram_credential_infos}

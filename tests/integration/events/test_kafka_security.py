"""Events over TLS and by SASL, into a real Kafka: who is refused is told why, and then goes on."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.events.test_kafka_faults import failing, last_error, make, problems
from tests.integration.events.written import TABLE, Topics, until, with_kafka, writing
from tests.integration.pipeline import execute
from tests.kafka import MECHANISMS, USERS, KafkaServer
from triggerkit.consumers.health import Problem
from triggerkit.settings import Settings

WRITER = "a-writer"
PASSWORD = "the password of the writer"


async def problem_of(settings: Settings, text: str) -> Problem:
    """Insert a row, and return the problem that its event has."""
    async with writing(settings, TABLE):
        await execute(settings, "INSERT INTO posts VALUES (1, 'a')")
        found: Problem = await until(lambda: failing(settings, text), f"problem {text!r}")
        return found


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_events_go_over_verified_tls_by_each_way_to_log_in(
    settings: Settings, kafka_server: KafkaServer, mechanism: str
) -> None:
    user, password = "admin", USERS["admin"]
    if mechanism != "PLAIN":
        # Who may do anything by its name has another password for SCRAM.
        password = PASSWORD
        kafka_server.set_password(user, password)
    tls = with_kafka(settings, kafka_server.tls_settings_of(user, password, mechanism))
    written = Topics(kafka_server, settings)

    async def scenario() -> None:
        async with writing(tls, TABLE):
            await execute(tls, "INSERT INTO posts VALUES (1, 'a')")
            assert [m.key for m in await written.until(1)] == ["1"]

    asyncio.run(scenario())
    assert problems(tls) == []


def test_a_certificate_of_another_authority_is_told(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    given = kafka_server.tls_settings_of("admin")
    given["KAFKA_SSL_CA_LOCATION"] = str(kafka_server.other_authority)
    found = asyncio.run(
        problem_of(with_kafka(settings, given), "the broker's certificate is not trusted")
    )
    assert "KAFKA_SSL_CA_LOCATION" in found.remedy
    assert found.name == "kafka_failing"


def test_a_certificate_for_another_name_is_told(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    given = kafka_server.tls_settings_of("admin")
    address = given["KAFKA_BOOTSTRAP_SERVERS"].replace("localhost", "127.0.0.1")
    given["KAFKA_BOOTSTRAP_SERVERS"] = address
    found = asyncio.run(
        problem_of(with_kafka(settings, given), "the broker's certificate is for another name")
    )
    assert "it is not for 127.0.0.1" in found.detail
    assert "KAFKA_BOOTSTRAP_SERVERS" in found.remedy


def test_a_listener_of_another_protocol_is_told(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    given = {**kafka_server.tls_settings_of("admin"), "KAFKA_SECURITY_PROTOCOL": "sasl_plaintext"}
    found = asyncio.run(problem_of(with_kafka(settings, given), "speaks another protocol"))
    assert "KAFKA_SECURITY_PROTOCOL" in found.remedy


def test_a_wrong_password_is_told_and_writing_goes_on_once_it_is_right(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    kafka_server.set_password(WRITER, "another password")
    given = kafka_server.tls_settings_of(WRITER, PASSWORD, "SCRAM-SHA-512")
    tls, written = with_kafka(settings, given), Topics(kafka_server, settings)
    make(kafka_server, written.name())
    kafka_server.allow(WRITER, written.name())

    async def scenario() -> None:
        async with writing(tls, TABLE):
            await execute(tls, "INSERT INTO posts VALUES (1, 'a')")
            found = await until(
                lambda: failing(tls, "the broker refuses the credentials"), "problem"
            )
            assert "KAFKA_SASL_PASSWORD" in found.remedy
            assert PASSWORD not in f"{found} {last_error(tls)}"
            await asyncio.to_thread(kafka_server.set_password, WRITER, PASSWORD)
            assert [m.key for m in await written.until(1)] == ["1"]
            await until(lambda: last_error(tls) is None, "end of the error")

    asyncio.run(scenario())


def test_a_way_to_log_in_that_is_not_the_user_s_is_told(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    # Its users of PLAIN are none of SCRAM.
    given = kafka_server.settings_of("guest", mechanism="SCRAM-SHA-256")
    found = asyncio.run(
        problem_of(with_kafka(settings, given), "the broker refuses the credentials")
    )
    assert "KAFKA_SASL_MECHANISM" in found.remedy


def test_who_may_write_no_more_is_told_and_goes_on_once_that_is_allowed_again(
    settings: Settings, kafka_server: KafkaServer
) -> None:
    kafka_server.set_password(WRITER, PASSWORD)
    given = kafka_server.tls_settings_of(WRITER, PASSWORD, "SCRAM-SHA-256")
    tls, written = with_kafka(settings, given), Topics(kafka_server, settings)
    make(kafka_server, written.name())
    kafka_server.allow(WRITER, written.name())

    async def scenario() -> None:
        async with writing(tls, TABLE):
            await execute(tls, "INSERT INTO posts VALUES (1, 'a')")
            await written.until(1)
            await asyncio.to_thread(kafka_server.forbid, WRITER, written.name())
            await execute(tls, "UPDATE posts SET title = 'b'", "UPDATE posts SET title = 'c'")
            found = await until(lambda: failing(tls, "the topic may not be written"), "problem")
            assert f"--topic {written.name()}" in found.remedy
            await asyncio.to_thread(kafka_server.allow, WRITER, written.name())
            messages = await written.until(3)
            await until(lambda: last_error(tls) is None, "end of the error")
        titles = [(m.value or {})["data"]["title"] for m in messages]
        assert titles == ["a", "b", "c"]

    asyncio.run(scenario())

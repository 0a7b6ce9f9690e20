"""A Redis or a RabbitMQ that is away, refuses us or forgets, told without its password."""

from __future__ import annotations

import pytest
import redis
from pydantic import SecretStr

from tests.integration.supervisor.checks.checking import checked
from tests.rabbitmq import RabbitmqServer
from triggerkit.settings import Settings
from triggerkit.supervisor.checks import broker


def test_redis_that_does_not_answer(settings: Settings) -> None:
    update = {"redis_url": SecretStr("redis://:hunter2@127.0.0.1:1/0")}
    check = checked(settings.model_copy(update=update))["redis reachable"]
    assert check.failed
    assert "hunter2" not in check.detail


def test_a_redis_url_that_is_none(settings: Settings) -> None:
    update = {"redis_url": SecretStr("redis://:hun#ter2@127.0.0.1:1/0")}
    check = checked(settings.model_copy(update=update))["redis reachable"]
    assert check.failed
    assert "hun" not in f"{check.detail} {check.remedy}"


def test_an_old_redis(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "MIN_REDIS", (99, 0))
    assert checked(settings)["redis version"].failed


def test_a_redis_that_forgets(settings: Settings) -> None:
    with redis.Redis.from_url(settings.broker_dsn) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            check = checked(settings)["redis eviction policy"]
            assert check.failed
            client.execute_command(*(check.remedy or "").split())
            assert checked(settings)["redis eviction policy"].ok
        finally:
            client.config_set("maxmemory-policy", "noeviction")


def test_what_a_redis_keeps_over_a_restart_is_told(settings: Settings) -> None:
    assert checked(settings)["redis durability"].detail == "append-only file"
    with redis.Redis.from_url(settings.broker_dsn) as client:
        client.config_set("appendonly", "no")
        try:
            check = checked(settings)["redis durability"]
        finally:
            client.config_set("appendonly", "yes")
    assert (check.ok, check.failed) == (True, False)
    assert "put back from Postgres" in check.detail


def test_a_redis_that_is_a_replica_takes_no_runs(settings: Settings) -> None:
    with redis.Redis.from_url(settings.broker_dsn) as client:
        client.replicaof("127.0.0.1", "1")
        try:
            check = checked(settings)["redis role"]
        finally:
            client.replicaof("NO", "ONE")
    assert check.failed
    assert "primary" in (check.remedy or "")
    assert "redis role" not in checked(settings)


def test_a_rabbitmq_that_answers(settings: Settings, rabbitmq_server: RabbitmqServer) -> None:
    update = {"triggerkit_broker_url": SecretStr(rabbitmq_server.url), "redis_url": None}
    checks = checked(settings.model_copy(update=update))
    assert checks["rabbitmq reachable"].ok
    assert "guest" not in checks["rabbitmq reachable"].detail
    assert not any("redis" in name for name in checks)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://user:hunter2@127.0.0.1:1/%2F",
        "amqp://user:hunter2@127.0.0.1:port/",
        "amqp://user:hunter2@127.0.0.1:1/?heartbeat=hunter2",
        "kafka://user:hunter2@127.0.0.1/",
        "redis://:hunter2@127.0.0.1/0",
    ],
)
def test_a_rabbitmq_that_does_not_answer(settings: Settings, url: str) -> None:
    update = {"triggerkit_broker_url": SecretStr(url)}
    check = checked(settings.model_copy(update=update))["rabbitmq reachable"]
    assert check.failed
    assert "TRIGGERKIT_BROKER_URL" in (check.remedy or "")
    assert "hunter2" not in f"{check.detail} {check.remedy}"


def test_a_rabbitmq_that_refuses_the_password(
    settings: Settings, rabbitmq_server: RabbitmqServer
) -> None:
    url = rabbitmq_server.url.replace("guest:guest", "guest:hunter2")
    update = {"triggerkit_broker_url": SecretStr(url)}
    check = checked(settings.model_copy(update=update))["rabbitmq reachable"]
    assert check.failed
    assert "ACCESS_REFUSED" in check.detail
    assert "hunter2" not in f"{check.detail} {check.remedy}"

"""Fixtures every kind of test may use; the servers start only when one is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings

from tests.kafka import KafkaServer, running_kafka
from tests.rabbitmq import RabbitmqServer, running_rabbitmq
from tests.servers import Servers
from triggerkit.embedded.folders import RELOCATED
from triggerkit.project import Project
from triggerkit.settings import Settings
from triggerkit.tasks.declare import declared

# Explaining a failure traces each call. On Python 3.11 a traced call never begins as long as an
# exception is on its way to another thread that waits: a stopped run may have such a thread.
hypothesis_settings.register_profile(
    "untraced", phases=[phase for phase in Phase if phase is not Phase.explain]
)
hypothesis_settings.load_profile("untraced")

#: What the tests' routes and pushes authorize themselves by.
WEBHOOK_SECRET = "a webhook secret for the tests only"

# Filters and transforms of tests are functions of their modules.
Project(Path(__file__).parent.parent, tasks=("tests",)).make_importable()


@pytest.fixture(autouse=True)
def declared_tasks() -> Iterator[None]:
    """Tasks that a test declares are gone after it, and those of other tests' modules before."""
    before = dict(declared)
    for name, task in before.items():
        if task.function.__module__.startswith("tests."):
            del declared[name]
    yield
    declared.clear()
    declared.update(before)


@pytest.fixture(scope="session", autouse=True)
def relocated_homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Homes of embedded servers outside the temporary folder go with the session: 100 MB each."""
    yield
    for place in tmp_path_factory.getbasetemp().rglob("postgres"):
        if place.is_symlink() and place.resolve().is_relative_to(RELOCATED):
            shutil.rmtree(place.resolve().parent, ignore_errors=True)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A real Postgres with pgvector and a real Redis."""
    servers = Servers(tmp_path_factory.mktemp("servers"))
    servers.start()
    yield servers
    servers.stop()


@pytest.fixture
def database_url(servers: Servers) -> Iterator[str]:
    """A database of the test's own, with pgvector and the schema `triggerkit`."""
    url = servers.new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO triggerkit.installation DEFAULT VALUES")
    yield url
    servers.drop_database(url)


@pytest.fixture
def database_id(database_url: str) -> int:
    """The row of the source in the state."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        row = connection.execute(
            "INSERT INTO triggerkit.databases (name, slot_name, publication_name) "
            "VALUES ('d', 's', 'p') RETURNING id"
        ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def redis_url(servers: Servers) -> str:
    """The session's Redis; keys carry the installation's id, so that tests do not meet."""
    return servers.redis.url


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitmqServer]:
    """A real RabbitMQ; its queues carry the installation's id, so that tests do not meet."""
    yield from running_rabbitmq()


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[KafkaServer]:
    """A real Kafka; topics carry their database's name, so that tests do not meet."""
    yield from running_kafka()


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    """Settings for a project on the test's own database."""
    return Settings.parse(
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "TRIGGERKIT_WEBHOOK_SECRET": WEBHOOK_SECRET,
            # Tests' receivers are on ports of their own.
            "TRIGGERKIT_ALLOW_NETWORKS": "127.0.0.0/8,::1/128",
        }
    )

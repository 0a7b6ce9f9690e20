"""A Kafka of the tests' own: one broker on its own ports and data, gone afterwards."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests import ROOT
from tests.certificates import Authority
from tests.ports import free_port
from tests.servers import Background
from triggerkit.embedded.process import GuardedProcess, Program

_JARS = ROOT / ".cache" / "kafka"

_START_TIMEOUT_S = 90.0

#: The users of the listener with credentials: one who may do anything, and one who may do nothing.
USERS = {"admin": "the admin's own password", "guest": "the guest's own password"}

#: How they may log in: PLAIN knows these users, SCRAM those that are made.
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

_TO_WRITE = (AclOperation.WRITE, AclOperation.DESCRIBE)
_TO_READ = (AclOperation.READ, AclOperation.DESCRIBE)


class KafkaServer:
    """One broker, which keeps its data and its ports over restarts. It ends with this process."""

    def __init__(self, host: str = "127.0.0.1", background: Background | None = None) -> None:
        self._host = host
        self._background = background or Background()
        self._home = Path(tempfile.mkdtemp(prefix="triggerkit-kafka-"))
        ports = (free_port() for _ in range(4))
        self._port, self._sasl_port, self._tls_port, self._controller_port = ports
        self._authority = Authority.make(self._home, "authority")
        #: Of an authority that signed nothing of the broker.
        self.other_authority = Authority.make(self._home, "another-authority").file
        self._process: GuardedProcess | None = None

    @property
    def servers(self) -> str:
        """Where it listens without credentials."""
        return f"{self._host}:{self._port}"

    @property
    def sasl_servers(self) -> str:
        """Where it asks for credentials."""
        return f"{self._host}:{self._sasl_port}"

    @property
    def tls_servers(self) -> str:
        """Where it asks for credentials over TLS. Its certificate is for the name, not for the
        address."""
        return f"localhost:{self._tls_port}"

    @property
    def authority(self) -> Path:
        """The certificate of who signed the broker's."""
        return self._authority.file

    def settings(self, **others: str) -> dict[str, str]:
        """What leads to it."""
        return {"KAFKA_BOOTSTRAP_SERVERS": self.servers, **others}

    def settings_of(
        self, user: str, password: str | None = None, mechanism: str = "PLAIN"
    ) -> dict[str, str]:
        """What leads to it as `user`."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.sasl_servers,
            "KAFKA_SECURITY_PROTOCOL": "sasl_plaintext",
            "KAFKA_SASL_MECHANISM": mechanism,
            "KAFKA_SASL_USERNAME": user,
            "KAFKA_SASL_PASSWORD": USERS[user] if password is None else password,
        }

    def tls_settings_of(
        self, user: str, password: str | None = None, mechanism: str = "PLAIN"
    ) -> dict[str, str]:
        """What leads to it as `user` over TLS."""
        return {
            **self.settings_of(user, password, mechanism),
            "KAFKA_BOOTSTRAP_SERVERS": self.tls_servers,
            "KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
            "KAFKA_SSL_CA_LOCATION": str(self.authority),
            "KAFKA_BROKER_ADDRESS_FAMILY": "v4",
        }

    def start(self) -> None:
        """Start, and return once it answers."""
        if self._process is not None:
            return
        if not (self._home / "data").exists():
            self._format()
        self._background.run(self._start())

    def stop(self, *, force: bool = False) -> None:
        """Stop in order, or with `force` kill it."""
        if self._process is not None:
            self._background.run(self._process.stop(force=force))
            self._process = None

    def remove(self) -> None:
        """Stop, and remove the data."""
        self.stop(force=True)
        shutil.rmtree(self._home, ignore_errors=True)

    @contextmanager
    def away(self, *, force: bool = False) -> Iterator[None]:
        """The broker is stopped, and started again afterwards."""
        self.stop(force=force)
        try:
            yield
        finally:
            self.start()

    @property
    def admin(self) -> AdminClient:
        """A client that makes and asks."""
        return AdminClient({"bootstrap.servers": self.servers, "log_level": "2"})

    def topics(self) -> dict[str, int]:
        """The topics and the number of their partitions."""
        found = self.admin.list_topics(timeout=10).topics
        return {name: len(topic.partitions) for name, topic in found.items()}

    def allow(self, user: str, topic: str) -> None:
        """Let `user` write to a topic."""
        self._create(_rules(user, ResourceType.TOPIC, topic, *_TO_WRITE))

    def allow_reading(self, user: str, topic: str, group: str) -> None:
        """Let `user` read a topic, as a group."""
        self._create(_rules(user, ResourceType.TOPIC, topic, *_TO_READ))
        self._create(_rules(user, ResourceType.GROUP, group, AclOperation.READ))

    def forbid(self, user: str, topic: str) -> None:
        """Let `user` write to a topic no more."""
        rules = [
            AclBindingFilter(
                ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, f"User:{user}", "*",
                AclOperation.WRITE, AclPermissionType.ANY,
            )
        ]  # fmt: skip
        admin = self.admin
        for answer in admin.delete_acls(rules).values():
            answer.result(timeout=20)

    def set_password(self, user: str, password: str) -> None:
        """Make a user whom SCRAM knows, or give it another password."""
        admin = self.admin
        made = [
            UserScramCredentialUpsertion(
                user, ScramCredentialInfo(mechanism, 8192), password.encode()
            )
            for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)
        ]
        for one in made:
            for answer in admin.alter_user_scram_credentials([one]).values():
                answer.result(timeout=20)

    def _create(self, rules: list[AclBinding]) -> None:
        admin = self.admin
        for answer in admin.create_acls(rules).values():
            answer.result(timeout=20)

    def read(self, *topics: str) -> list[Message]:
        """All messages of the topics, those of each partition in order."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": "tests",
                "enable.auto.commit": "false",
                "auto.offset.reset": "earliest",
                "enable.partition.eof": "true",
                "log_level": "2",
            }
        )
        try:
            return self._read(consumer, topics)
        finally:
            consumer.close()

    def _read(self, consumer: Consumer, topics: tuple[str, ...]) -> list[Message]:
        there = consumer.list_topics(timeout=10).topics
        places = [
            TopicPartition(name, number, 0) for name in topics for number in there[name].partitions
        ]
        consumer.assign(places)
        found: list[Message] = []
        ended = 0
        while ended < len(places):
            message = consumer.poll(30)
            # One without a value is false by itself.
            assert message is not None, "the broker does not answer"
            error = message.error()
            if error is None:
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ended += 1
            else:
                raise KafkaException(error)
        return found

    def _format(self) -> None:
        (self._home / "server.properties").write_text(
            "".join(f"{name}={value}\n" for name, value in self._properties().items())
        )
        command = [*_java(), "kafka.tools.StorageTool", "format", "--standalone"]
        command += ["-t", "dHJpZ2dlcmtpdC10ZXN0cw", "-c", str(self._home / "server.properties")]
        made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert made.returncode == 0, made.stdout + made.stderr

    def _properties(self) -> Mapping[str, Any]:
        users = " ".join(f'user_{name}="{password}"' for name, password in USERS.items())
        plain = f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        listeners = (
            f"PLAIN://{self.servers},SASL://{self.sasl_servers},TLS://{self.tls_servers},"
            f"CONTROLLER://{self._host}:{self._controller_port}"
        )
        logins = {
            f"listener.name.{listener}.{mechanism.lower()}.sasl.jaas.config": module
            for listener in ("sasl", "tls")
            for mechanism, module in zip(MECHANISMS, (plain, scram, scram), strict=True)
        }
        return {
            **logins,
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.bootstrap.servers": f"{self._host}:{self._controller_port}",
            "listeners": listeners,
            "advertised.listeners": listeners,
            "listener.security.protocol.map": (
                "CONTROLLER:PLAINTEXT,PLAIN:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SASL_SSL"
            ),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAIN",
            "log.dirs": self._home / "data",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "sasl.enabled.mechanisms": ",".join(MECHANISMS),
            "listener.name.tls.ssl.keystore.type": "PEM",
            "listener.name.tls.ssl.keystore.location": self._authority.sign(
                self._home, "localhost"
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS;User:admin",
        }

    async def _start(self) -> None:
        program = Program(
            name="Kafka",
            command=[*_java(), "kafka.Kafka", self._home / "server.properties"],
            log=self._home / "log",
            stop_signal=signal.SIGTERM,
            force_signal=signal.SIGKILL,
        )
        self._process = await GuardedProcess.start(program)
        await self._process.until_ready(self._answers, _START_TIMEOUT_S)

    async def _answers(self) -> bool:
        return await asyncio.to_thread(self._is_there)

    def _is_there(self) -> bool:
        try:
            return bool(self.admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return False


def _rules(user: str, kind: ResourceType, name: str, *operations: AclOperation) -> list[AclBinding]:
    return [
        AclBinding(
            kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*",
            operation, AclPermissionType.ALLOW,
        )
        for operation in operations
    ]  # fmt: skip


def _java() -> list[str | Path]:
    java = shutil.which("java")
    assert java is not None
    return [java, "-Xmx256m", "-cp", f"{_JARS}/*"]


def missing_for_kafka() -> str | None:
    """What a broker needs and is not there."""
    if shutil.which("java") is None:
        return "java is missing: install Debian's default-jre-headless"
    if not list(_JARS.glob("kafka_2.13-*.jar")):
        return "no Kafka: run `make kafka`, which needs Maven"
    return None


def running_kafka() -> Iterator[KafkaServer]:
    """A started broker; the test is skipped where it or Java is missing."""
    missing = missing_for_kafka()
    if missing is not None:
        if os.environ.get("TRIGGERKIT_TEST_REQUIRE") == "all":
            pytest.fail(missing)
        pytest.skip(missing)
    server = KafkaServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()

"""What is wrong with a broker's certificate is found by a look at it: Kafka's client says less."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest

from tests.certificates import Authority
from triggerkit.events.kafka.broker import Broker
from triggerkit.events.kafka.faults import (
    EXPIRED,
    NOT_ITS_NAME,
    OTHER_PROTOCOL,
    UNTRUSTED,
    KafkaFault,
    remedy_of,
)
from triggerkit.settings import Settings


@contextmanager
def listening(certificate: Path | None) -> Iterator[int]:
    """A port where a certificate is shown, or where nobody speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate is not None:
        context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    try:
                        if certificate is None:
                            connection.recv(4096)
                        else:
                            context.wrap_socket(connection, server_side=True).recv(4096)
                    except OSError:
                        pass

        Thread(target=serve, daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)


def told(port: int, authority: Path, host: str = "localhost", protocol: str = "ssl") -> str:
    """What is said of the broker at a port."""
    given = {
        "KAFKA_BOOTSTRAP_SERVERS": f"{host}:{port}",
        "KAFKA_SECURITY_PROTOCOL": protocol,
        "KAFKA_SSL_CA_LOCATION": str(authority),
        "KAFKA_BROKER_ADDRESS_FAMILY": "v4",
    }
    with pytest.raises(KafkaFault) as raised:
        asyncio.run(Broker(Settings.parse(given).kafka).look([]))
    return str(raised.value)


def test_each_reason_is_told_with_what_mends_it(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path, "authority")
    other = Authority.make(tmp_path, "another")
    long_ago = datetime.now(UTC) - timedelta(days=30)
    good = authority.sign(tmp_path, "localhost")
    old = authority.sign(tmp_path, "localhost", file="old.pem", until=long_ago)
    with listening(good) as port:
        fault = told(port, other.file)
        assert fault.startswith(f"Kafka: {UNTRUSTED}: localhost: ")
        assert "KAFKA_SSL_CA_LOCATION" in (remedy_of(fault) or "")
        fault = told(port, authority.file, "127.0.0.1")
        assert fault == f"Kafka: {NOT_ITS_NAME}: it is not for 127.0.0.1"
        assert "advertised.listeners" in (remedy_of(fault) or "")
        fault = told(port, authority.file, protocol="plaintext")
        assert fault == f"Kafka: {OTHER_PROTOCOL}: it wants TLS"
    with listening(old) as port:
        fault = told(port, authority.file)
        assert fault.startswith(f"Kafka: {EXPIRED}: localhost: ")
        assert remedy_of(fault) == "give the broker a new certificate"
    with listening(None) as port:
        fault = told(port, authority.file)
        assert fault.startswith(f"Kafka: {OTHER_PROTOCOL}")
        assert "KAFKA_SECURITY_PROTOCOL" in (remedy_of(fault) or "")

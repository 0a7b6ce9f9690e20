"""Why a broker's certificate is refused: Kafka's client tells no reason from another."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from triggerkit.events.kafka.faults import (
    EXPIRED,
    NOT_ITS_NAME,
    UNTRUSTED,
    KafkaFault,
    fault_of,
    said,
)

#: Seconds that the look at a certificate may take.
LOOK_S: Final = 5.0

#: Where the client was refused, in its message.
_WHERE: Final = re.compile(r"ssl://\[?([^/\s\]]+)\]?:(\d+)/")

#: OpenSSL's numbers of what is wrong with a certificate.
_EXPIRED: Final = 10
_OF_ANOTHER_NAME: Final = (62, 64)


def connection_fault(error: Any, properties: Mapping[str, str]) -> KafkaFault:
    """Return what the client's `error` says of a connection. Of a certificate that it refused, the
    reason is found by a look at it."""
    where = _WHERE.search(error.str())
    if error.name() != "_SSL" or where is None:
        return fault_of(error)
    host, port = where[1], int(where[2])
    try:
        _look(host, port, properties)
    except ssl.SSLCertVerificationError as refused:
        return KafkaFault(_said(host, refused))
    except (OSError, ValueError):
        pass
    return fault_of(error)


def _look(host: str, port: int, properties: Mapping[str, str]) -> None:
    with (
        socket.create_connection((host, port), LOOK_S) as connection,
        _context(properties).wrap_socket(connection, server_hostname=host),
    ):
        pass


def _context(properties: Mapping[str, str]) -> ssl.SSLContext:
    given = properties.get("ssl.ca.location")
    if given is not None and Path(given).is_dir():
        return ssl.create_default_context(capath=given)
    return ssl.create_default_context(cafile=given, cadata=properties.get("ssl.ca.pem"))


def _said(host: str, refused: ssl.SSLCertVerificationError) -> str:
    if refused.verify_code in _OF_ANOTHER_NAME:
        return said(NOT_ITS_NAME, f"it is not for {host}")
    cause = EXPIRED if refused.verify_code == _EXPIRED else UNTRUSTED
    return said(cause, f"{host}: {refused.verify_message}")

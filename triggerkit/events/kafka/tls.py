"""Why TLS with a broker does not come about: Kafka's client tells no reason from another."""

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
    OTHER_PROTOCOL,
    UNTRUSTED,
    KafkaFault,
    fault_of,
    said,
)

#: Seconds that the look at a certificate may take.
LOOK_S: Final = 5.0

#: A host and its port in the client's messages, and with a slash behind it.
_PLACE: Final = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:]+\]):(\d+)/")

#: The client's codes of faults whose reason may be TLS: a listener that wants it is not reached.
_UNTOLD: Final = ("_SSL", "_ALL_BROKERS_DOWN", "_TRANSPORT")

#: OpenSSL's numbers of what is wrong with a certificate.
_EXPIRED: Final = 10
_OF_ANOTHER_NAME: Final = (62, 64)


def connection_fault(error: Any, properties: Mapping[str, str]) -> KafkaFault:
    """Return what the client's `error` says of a connection. Of a certificate that it refused, the
    reason is found by a look at it; so is a listener that wants TLS, where the client has none."""
    where = _where(error.str(), properties["bootstrap.servers"])
    if error.name() not in _UNTOLD or where is None:
        return fault_of(error)
    if "ssl" not in properties.get("security.protocol", "").lower():
        is_other = _speaks_tls(*where)
        return KafkaFault(said(OTHER_PROTOCOL, "it wants TLS")) if is_other else fault_of(error)
    try:
        _look(*where, properties)
    except ssl.SSLCertVerificationError as refused:
        return KafkaFault(_said(where[0], refused))
    except (ssl.SSLEOFError, ConnectionResetError):
        return KafkaFault(said(OTHER_PROTOCOL, "it does not answer TLS"))
    except (OSError, ValueError):
        pass
    return fault_of(error)


def _where(text: str, servers: str) -> tuple[str, int] | None:
    """Return the place that the client names, else the first that it was given."""
    found = _PLACE.search(text) or _PLACE.search(f"{servers.partition(',')[0].strip()}/")
    return None if found is None else (found[1].strip("[]"), int(found[2]))


def _look(host: str, port: int, properties: Mapping[str, str]) -> None:
    with (
        socket.create_connection((host, port), LOOK_S) as connection,
        _context(properties).wrap_socket(connection, server_hostname=host),
    ):
        pass


def _speaks_tls(host: str, port: int) -> bool:
    """Return whether who listens there answers TLS; nothing is said to them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), LOOK_S) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return True
    except (OSError, ValueError):
        return False


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

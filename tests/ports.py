"""Ports that nobody has, for servers that are stopped and started again on the port they had."""

from __future__ import annotations

import random
import socket

#: Below those that systems give to connections that go out: while a server is away, one of them
#: could take its port.
_RANGE = range(20_000, 32_000)

#: Test processes that run beside each other draw others.
_draw = random.SystemRandom()


def free_port() -> int:
    """Return a port of the loopback address that is free now."""
    while True:
        port = _draw.choice(_RANGE)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port

"""Listen on a port, or say why that is not possible."""

from __future__ import annotations

import socket

from triggerkit.configuration.addresses import bracketed
from triggerkit.errors import PreflightFailed


def listen(host: str, port: int, setting: str = "TRIGGERKIT_PORT or --port") -> socket.socket:
    """Return a listening socket; `setting` is what chooses another port.

    Raises:
        PreflightFailed: the port is in use, or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP's: of no others asyncio sends small writes at once, and answers take 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise PreflightFailed(
            f"cannot listen on {bracketed(host)}:{port}: {error.strerror or error}; stop the "
            f"program that uses the port, or choose another with {setting}"
        ) from error
    listener.set_inheritable(True)
    return listener

"""The server that a tunnel leads to, by its address."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from triggerkit.configuration.addresses import host_in_url, is_host
from triggerkit.delivery.http.network import is_loopback
from triggerkit.errors import ConfigurationError
from triggerkit.tunnel.wire import PATH

#: Characters that a part of a host's name may have.
LONGEST_LABEL = 63

_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


@dataclass(frozen=True, slots=True)
class Server:
    """A server, by its address, such as `wss://app.example.com`."""

    scheme: str
    host: str
    port: int | None
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Server:
        """Read an address.

        Raises:
            ConfigurationError: it is none, or would send the token for everybody to read; the
                message does not repeat it.
        """
        try:
            parts = urlsplit(url if "://" in url else f"wss://{url}")
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port = "", None
        if not _is_name(host) or parts.scheme not in _SCHEMES or "@" in parts.netloc:
            raise ConfigurationError(
                "--server is not the address of a server; it looks like wss://app.example.com, "
                "without a user or a password"
            )
        scheme = _SCHEMES[parts.scheme]
        if scheme == "ws" and not is_loopback(host):
            raise ConfigurationError(
                f"--server: over {parts.scheme}:// everybody on the way reads your token and the "
                f"rows; use wss://{host}"
            )
        return cls(scheme, host, port, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """Its host and port."""
        return host_in_url(self.host) + ("" if self.port is None else f":{self.port}")

    @property
    def tunnel_url(self) -> str:
        """Where it takes tunnels."""
        return f"{self.scheme}://{self.authority}{self.prefix}{PATH}"

    def dashboard_url(self, endpoint: str | None) -> str:
        """Return the page of an endpoint, or of all of them."""
        scheme = "https" if self.scheme == "wss" else "http"
        page = "endpoints" if endpoint is None else f"endpoints/{quote(endpoint)}"
        return f"{scheme}://{self.authority}{self.prefix}/dashboard/{page}"


def _is_name(host: str) -> bool:
    labels = host.removesuffix(".").split(".")
    return is_host(host) and all(1 <= len(label) <= LONGEST_LABEL for label in labels)

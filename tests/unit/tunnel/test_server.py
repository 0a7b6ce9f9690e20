"""The server of a tunnel, by what people type."""

from __future__ import annotations

import pytest

from triggerkit.errors import ConfigurationError
from triggerkit.tunnel.server import Server


@pytest.mark.parametrize(
    ("typed", "tunnel", "dashboard"),
    [
        ("wss://app.example.com", "wss://app.example.com", "https://app.example.com"),
        ("https://app.example.com/", "wss://app.example.com", "https://app.example.com"),
        ("app.example.com", "wss://app.example.com", "https://app.example.com"),
        (
            "wss://a.example:8443/below",
            "wss://a.example:8443/below",
            "https://a.example:8443/below",
        ),
        ("ws://127.0.0.1:8000", "ws://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://localhost:8000", "ws://localhost:8000", "http://localhost:8000"),
        ("http://[::1]:8000", "ws://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address_leads_to_tunnels_and_to_the_dashboard(
    typed: str, tunnel: str, dashboard: str
) -> None:
    server = Server.parse(typed)
    assert server.tunnel_url == f"{tunnel}/api/v1/tunnel"
    assert server.dashboard_url("a.b") == f"{dashboard}/dashboard/endpoints/a.b"
    assert server.dashboard_url(None) == f"{dashboard}/dashboard/endpoints"


@pytest.mark.parametrize(
    "typed",
    ["", "wss://", "ftp://app.example.com", "wss://user:hunter2@app.example.com", "wss://a:b",
     "ws://app.example.com", "http://10.0.0.1", "ws://127.0.0.1.evil.example"],
)  # fmt: skip
def test_what_is_none_or_would_show_the_token_is_refused(typed: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Server.parse(typed)
    assert "hunter2" not in str(refused.value)

"""Where `serve` listens, and how this machine reaches it."""

from __future__ import annotations

import pytest

from triggerkit.delivery.http.network import is_loopback
from triggerkit.settings import Settings


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("localhost", "http://localhost:8000"),
        ("::1", "http://[::1]:8000"),
        ("[::1]", "http://[::1]:8000"),
        ("::", "http://[::1]:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("10.1.2.3", "http://10.1.2.3:8000"),
        ("fe80::1", "http://[fe80::1]:8000"),
    ],
)
def test_our_own_routes_are_reached_where_we_listen(host: str, url: str) -> None:
    settings = Settings.parse({"TRIGGERKIT_HOST": host})
    assert settings.public_url == url
    assert settings.triggerkit_host == host.strip("[]")


def test_what_kubernetes_says_of_a_service_of_our_name_is_no_setting() -> None:
    settings = Settings.parse({"TRIGGERKIT_PORT": "tcp://10.0.171.239:8000"})
    assert settings.triggerkit_port == 8000


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_has_many_addresses(host: str) -> None:
    assert is_loopback(host)

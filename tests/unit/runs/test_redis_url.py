"""Redis's connection string, as other clients write it, and without its password in an error."""

from __future__ import annotations

import pytest

from triggerkit.errors import ConfigurationError
from triggerkit.runs.transport.redis_url import read_redis_url


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("redis://:pw@host:6379/0", "redis://:pw@host:6379/0"),
        ("redis://host/0?ssl_cert_reqs=none", "redis://host/0"),
        ("redis://host/0?ssl_cert_reqs=none&health_check_interval=5",
         "redis://host/0?health_check_interval=5"),
        ("rediss://host/0?ssl_cert_reqs=none", "rediss://host/0?ssl_cert_reqs=none"),
        ("rediss://host/0?ssl_cert_reqs=CERT_NONE", "rediss://host/0?ssl_cert_reqs=none"),
        ("rediss://host/0?ssl_cert_reqs=CERT_REQUIRED", "rediss://host/0?ssl_cert_reqs=required"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ],
)  # fmt: skip
def test_it_is_read_with_and_without_tls(url: str, read: str) -> None:
    assert read_redis_url(url) == read


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "http://:hunter2@host",
        "redis://:hunter2@host:port/0",
        "redis://:hunter2@host/0?unknown=1",
        "rediss://:hunter2@host/0?ssl_cert_reqs=sometimes",
    ],
)
def test_what_cannot_be_read_is_one_error_without_the_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL cannot be read") as raised:
        read_redis_url(url)
    assert "hunter2" not in str(raised.value)

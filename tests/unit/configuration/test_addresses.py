"""Addresses of servers: read strictly, shown without their secrets."""

from __future__ import annotations

import pytest

from triggerkit.configuration.addresses import (
    http_problem,
    read_database_url,
    read_server_url,
    shown_database,
    shown_server,
)
from triggerkit.errors import ConfigurationError


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:pw@h:5432/d", "postgresql://h:5432/d"),
        ("postgres://u:p%40w%2F@h/d?sslmode=require", "postgresql://h/d"),
        ("postgresql://u:p#w@h/d", "postgresql://h/d"),
        ("postgresql://u:pw@a:1,b:2/d?target_session_attrs=read-write", "postgresql://a:1,b:2/d"),
        ("postgresql://u@/d?host=/run/pg&port=5433", "postgresql:///d?host=/run/pg&port=5433"),
        ("postgresql://u:pw@[::1]:5432/d", "postgresql://[::1]:5432/d"),
        ("host=db_1.internal user=u password='p w' dbname=d", "postgresql://db_1.internal/d"),
        ("postgresql:///d", "postgresql://localhost/d"),
    ],
)
def test_a_database_is_shown_by_its_hosts_and_name(url: str, shown: str) -> None:
    read_database_url(url)
    assert shown_database(url) == shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:pw@h/d?sslmode=require", "postgresql://u@h/d?sslmode=require"),
        ("postgresql://u@/d?host=/run/pg&port=5433", "postgresql://u@/d?host=/run/pg&port=5433"),
        ("postgresql://pw@h/d", "postgresql://h/d"),
        ("postgresql://u%3Apw@h/d", "postgresql://h/d"),
        ("postgresql://h/d?user=u&password=pw&sslpassword=pw", "postgresql://u@h/d"),
    ],
)
def test_what_connects_with_a_password_from_elsewhere_has_the_user(url: str, shown: str) -> None:
    assert shown_database(url, is_whole=True) == shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hun@ter2@h/d",
        "postgresql://u:hun/ter2@h/d",
        "postgresql://u:hun?ter2@h/d",
        "postgresql://u:4242/ter2@h/d",
        "postgresql://u:hunter2",
        "postgresql://u:hun%zzter2@h/d",
        "postgresql://u:hunter2@h:port/d",
        "postgresql://u:hunter2@h:0/d",
        "postgresql://u:hunter2@h/d?connect_timeout=ter2",
        "postgresql+asyncpg://u:hunter2@h/d",
        "jdbc:postgresql://h/d?user=u&password=hunter2",
        '"postgresql://u:hunter2@h/d"',
        "u:hunter2@h/d",
        "host=u:hunter2@h dbname=d",
        "dbname=postgresql://u:hunter2@h/d",
        "postgresql://u:hun\udcffter2@h/d",
    ],
)
def test_a_database_url_that_is_odd_is_refused_with_the_remedy_alone(url: str) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL") as raised:
        read_database_url(url, "DATABASE_URL")
    for part in ("hun", "ter2", "4242"):
        assert part not in str(raised.value)
    assert shown_database(url) == "postgresql://(unreadable)"


def test_characters_to_encode_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"@ is %40, / is %2F, # is %23"):
        read_database_url("postgresql://u:p/w@h/d")


REDIS = ("redis", "rediss", "unix")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@h:6379/0", "redis://h:6379/0"),
        ("redis://u:p@w@h:6379/0", "redis://h:6379/0"),
        ("redis://pw@h", "redis://h"),
        ("redis://h/0?password=pw", "redis://h/0"),
        ("unix:///run/redis.sock?password=pw", "unix:///run/redis.sock"),
    ],
)
def test_a_server_is_shown_by_host_port_and_path(url: str, shown: str) -> None:
    read_server_url(url, "REDIS_URL", REDIS, "redis://h")
    assert shown_server(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hun#ter2@h:6379/0",
        "redis://:hun/ter2@h:6379/0",
        "redis://:4242/ter2@h:6379/0",
        "redis://:4242?ter2@h:6379/0",
        "redis://:4242#ter2@h:6379/0",
        "redis://:hun[ter2@h/0",
        "redis://:hun ter2@h/0",
        "redis:/:hunter2@h/0",
        ":hunter2@h/0",
        "http://:hunter2@h/0",
    ],
)
def test_a_server_url_that_is_odd_is_refused_with_the_remedy_alone(url: str) -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL cannot be read") as raised:
        read_server_url(url, "REDIS_URL", REDIS, "redis://h")
    for part in ("hun", "ter2", "4242"):
        assert part not in str(raised.value) + shown_server(url).replace("http://h/0", "")


@pytest.mark.parametrize(
    "url", ["http://u:hunter2@h", "http://h:port", "h:80", "http://", "http://h/a b", "ftp://h"]
)
def test_a_web_address_that_is_odd_is_told_without_repeating_it(url: str) -> None:
    problem = http_problem(url)
    assert problem is not None
    assert "hunter2" not in problem


@pytest.mark.parametrize("url", ["http://h", "https://app.example.com/base/", "http://[::1]:80"])
def test_a_web_address_is_taken(url: str) -> None:
    assert http_problem(url) is None

"""A user of Redis that may not do all, and certificates that do not fit: told with the remedy."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr

from tests.certificates import Authority
from tests.integration.supervisor.checks.checking import checked
from tests.redis_server import redis_server, require_redis, require_valkey
from tests.servers import Servers
from triggerkit.runs.transport.redis_rights import RULES
from triggerkit.settings import Settings
from triggerkit.supervisor.checks import Check

#: A rule that is taken away, and what of it is told.
LACKS = [
    (rule.replace("+", "-"), rule) for rule in RULES.split() if rule[0] == "+" and rule != "+select"
]


def at(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"redis_url": SecretStr(url)})


@pytest.fixture(scope="module")
def port(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A Redis whose user `triggerkit` may do what it has to."""
    user = f"user triggerkit on >hunter2 resetchannels {RULES}"
    with redis_server(servers, tmp_path_factory.mktemp("acl"), require_redis(), user) as port:
        yield port


def type_remedy(port: int, check: Check) -> None:
    with redis.Redis(port=port) as client:
        client.execute_command(*shlex.split(check.remedy or ""))


def test_a_user_of_least_rights_has_all(settings: Settings, port: int) -> None:
    found = checked(at(settings, f"redis://triggerkit:hunter2@127.0.0.1:{port}/0"))
    assert found["redis rights"].ok
    assert found["redis rights"].detail == "triggerkit"
    assert found["redis version"].ok


@pytest.mark.parametrize(("without", "told"), LACKS)
def test_each_command_that_is_missing_is_told_and_its_remedy_mends_it(
    settings: Settings, port: int, without: str, told: str
) -> None:
    own = at(settings, f"redis://triggerkit:hunter2@127.0.0.1:{port}/0")
    with redis.Redis(port=port) as client:
        client.execute_command("ACL", "SETUSER", "triggerkit", without)
    check = checked(own)["redis rights"]
    assert check.failed
    assert told in check.detail
    assert "hunter2" not in f"{check.detail} {check.remedy}"
    type_remedy(port, check)
    assert checked(own)["redis rights"].ok


@pytest.mark.parametrize(
    ("without", "told"),
    [
        ("resetkeys", "~triggerkit:*"),
        ("resetchannels", "&triggerkit:watch"),
        ("-select", "+select"),
    ],
)
def test_keys_channels_and_the_database_that_are_missing_are_told(
    settings: Settings, port: int, without: str, told: str
) -> None:
    own = at(settings, f"redis://triggerkit:hunter2@127.0.0.1:{port}/1")
    with redis.Redis(port=port) as client:
        client.execute_command("ACL", "SETUSER", "triggerkit", without)
    check = checked(own)["redis rights"]
    assert check.failed
    assert check.detail == f"the user triggerkit lacks {told}" or without == "-select"
    assert told in check.detail
    type_remedy(port, check)
    assert checked(own)["redis rights"].ok


def test_a_wrong_password_is_no_lack_of_rights(settings: Settings, port: int) -> None:
    found = checked(at(settings, f"redis://triggerkit:hunter3@127.0.0.1:{port}/0"))
    assert found["redis reachable"].failed
    assert "user and password" in (found["redis reachable"].remedy or "")
    assert "redis rights" not in found


def test_valkey_is_named(servers: Servers, tmp_path: Path, settings: Settings) -> None:
    with redis_server(servers, tmp_path, require_valkey()) as port:
        found = checked(at(settings, f"redis://127.0.0.1:{port}/0"))
    assert not [check for name, check in found.items() if name.startswith("redis") and check.failed]
    assert found["redis version"].detail.startswith("Valkey 9.1.2, as Redis 7.")


def test_what_is_wrong_with_a_certificate_is_told(
    servers: Servers, tmp_path: Path, settings: Settings
) -> None:
    authority, other = (Authority.make(tmp_path, name) for name in ("authority", "another"))
    pair = authority.sign(tmp_path, "localhost")
    lines = ["port 0", "tls-port {port}", f"tls-cert-file {pair}", f"tls-key-file {pair}"]
    lines += [f"tls-ca-cert-file {authority.file}", "tls-auth-clients no"]
    with redis_server(servers, tmp_path, require_redis(), *lines) as port:

        def told(host: str, query: str, scheme: str = "rediss") -> Check:
            url = f"{scheme}://:hunter2@{host}:{port}/0{query}"
            check = checked(at(settings, url))["redis reachable"]
            assert check.failed
            assert "hunter2" not in f"{check.detail} {check.remedy}"
            return check

        trusted = f"?ssl_ca_certs={authority.file}"
        for query in (f"?ssl_ca_certs={other.file}", ""):
            check = told("localhost", query)
            assert check.detail.startswith("the server's certificate is not trusted: ")
            assert "ssl_ca_certs" in (check.remedy or "")
        check = told("127.0.0.1", trusted)
        assert check.detail.startswith("the server's certificate is for another name: ")
        assert "write the host" in (check.remedy or "")
        check = told("localhost", f"?ssl_ca_certs={tmp_path}/missing.pem")
        assert check.detail.startswith("the file of authorities that are trusted cannot be read: ")
    with redis_server(servers, tmp_path, require_redis()) as port:
        # It waits for the end of a line, which a client of TLS does not write.
        assert "redis:// without" in (told("localhost", trusted).remedy or "")

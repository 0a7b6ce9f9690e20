"""An upgrade whose locks others have: an autovacuum gives way, and another upgrade is told of."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import psycopg
import pytest

from tests.acceptance.project import eventually
from tests.integration.state.test_upgrade_command import old_url  # noqa: F401 - a fixture
from tests.integration.state.test_upgrades import _SHAPE, rows, upgrade
from tests.servers import Servers
from triggerkit.state import migrate
from triggerkit.state.migrate import MIGRATION_LOCK

#: It takes minutes for as many pages.
_SLOWLY = """
ALTER TABLE triggerkit.consumers SET (autovacuum_vacuum_cost_delay = 100,
    autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_threshold = 1,
    autovacuum_vacuum_scale_factor = 0)
"""

_UPDATES = """
UPDATE triggerkit.consumers
SET last_error = (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 40))
"""

_VACUUMING = """
SELECT count(*) FROM pg_stat_progress_vacuum v JOIN pg_stat_activity a USING (pid)
WHERE a.backend_type = 'autovacuum worker' AND v.datname = current_database()
    AND v.relid = 'triggerkit.consumers'::regclass
"""


@pytest.fixture
def vacuuming(servers: Servers) -> Iterator[None]:
    """A server that looks every second for what is to be vacuumed."""
    with psycopg.connect(servers.postgres.url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET autovacuum_naptime = '1s'")
        connection.execute("SELECT pg_reload_conf()")
        yield
        connection.execute("ALTER SYSTEM RESET autovacuum_naptime")
        connection.execute("SELECT pg_reload_conf()")


@pytest.mark.usefixtures("vacuuming")
def test_an_autovacuum_gives_way(
    old_url: str,  # noqa: F811
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(migrate, "AGAIN_S", 0.1)
    with psycopg.connect(old_url, autocommit=True) as connection:
        connection.execute(_SLOWLY)
        for _ in range(200):
            connection.execute(_UPDATES)
        eventually(lambda: connection.execute(_VACUUMING).fetchone() == (1,), 60, "it vacuums")
        upgrading = threading.Thread(target=upgrade, args=[old_url], daemon=True)
        upgrading.start()
        upgrading.join(20)
        assert not upgrading.is_alive()
    shape = "SELECT count(*) FROM triggerkit.migrations"
    assert rows(old_url, shape) == rows(database_url, shape)


def test_an_upgrade_says_that_another_one_is_under_way(
    old_url: str,  # noqa: F811
    database_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    upgrading = threading.Thread(target=upgrade, args=[old_url])
    with psycopg.connect(old_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        upgrading.start()
        eventually(lambda: "another process upgrades" in caplog.text, 20, "it says so")
        assert upgrading.is_alive()
    upgrading.join(60)
    assert rows(old_url, _SHAPE) == rows(database_url, _SHAPE)

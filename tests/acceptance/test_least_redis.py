"""A whole system on a Valkey, as a user of least rights, over several losses of what it has."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from tests.acceptance.running_system import System
from tests.redis_server import redis_server, require_valkey
from tests.servers import Servers
from triggerkit.runs.transport.redis_rights import RULES
from triggerkit.settings import Settings


@pytest.mark.timeout(120)
def test_a_user_of_least_rights_is_refused_nothing(
    servers: Servers, tmp_path: Path, settings: Settings
) -> None:
    with redis_server(servers, tmp_path, require_valkey()) as port:
        with redis.Redis(port=port) as admin:
            rules = f"ACL SETUSER triggerkit on >hunter2 resetchannels {RULES}"
            admin.execute_command(*rules.split())
            url = f"redis://triggerkit:hunter2@127.0.0.1:{port}/1"
            system = System(tmp_path, {**settings.environment(), "REDIS_URL": url})
            try:
                assert system.command("apply").returncode == 0
                for name in ("serve", "worker", "stream"):
                    system.start(name)
                system.be_well()
                admin.flushall()
                system.mended(system.insert("after a loss"))
                checked = system.command("check")
                assert checked.returncode == 0, checked.stdout
                assert "Valkey" in checked.stdout
            finally:
                system.stop_all()
            # The client's name of itself may be refused; Redis before 7.2 has no such command.
            refused = {entry["object"] for entry in admin.acl_log()}
        assert refused <= {"client|setinfo"}

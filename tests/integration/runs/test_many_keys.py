"""Ten thousand keys at once: the locks of a transaction are bounded, and keys still exclude."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from tests.integration.run_state import RunState, completed, new_run, run_state
from tests.servers import Servers
from triggerkit.runs import keys
from triggerkit.runs.accept.within import accept_within
from triggerkit.runs.keeper.keeper import Keeper
from triggerkit.runs.keeper.liveness import FailureDetector
from triggerkit.runs.keeper.processes import ExecutingProcesses
from triggerkit.runs.keeper.retention import Retention
from triggerkit.runs.run import RunOptions
from triggerkit.runs.session import by_index
from triggerkit.runs.transport.open import open_transport
from triggerkit.settings import Settings
from triggerkit.state.connect import pinned

LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"


@pytest.fixture
def small_server(tmp_path: Path) -> Iterator[RunState]:
    """The state on a server that is made for few connections, and has as few locks."""
    servers = Servers(tmp_path / "servers")
    servers.start()
    try:
        with psycopg.connect(servers.postgres.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET max_connections = 25")
        servers.run(servers.postgres.stop())
        servers.run(servers.postgres.start())
        url = servers.new_database()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("INSERT INTO triggerkit.installation DEFAULT VALUES")
        given = {"DATABASE_URL": url, "REDIS_URL": servers.redis.url}
        with run_state(Settings.parse(given)) as state:
            yield state
    finally:
        servers.stop()


def test_ten_thousand_pending_keys_go_on_and_hold_up_nothing(small_server: RunState) -> None:
    state = small_server
    pinned_dsn = pinned(by_index(state.settings.state_dsn), "triggerkit keeper")
    transport = open_transport(state.settings, state.namespace)
    retention = Retention(timedelta(days=7))
    keeper = Keeper(pinned_dsn, transport, ExecutingProcesses(), threading.Event(), retention)
    waiting = [new_run(f"key/{n}") for n in range(10_000)]
    state.accept(due := new_run(delay_s=0.01))
    with psycopg.connect(state.settings.state_dsn) as connection:
        accept_within(connection, waiting)
    detector = FailureDetector(8.0)
    state.wait_for(lambda: keeper.tick(state.connection, detector) and len(state.pushed()) > 10_000)
    assert state.run(due.id)["status"] == "queued"
    assert state.rows("SELECT count(*) FROM triggerkit.runs WHERE pending OR blocked") == [0]
    # All at once they are completed, and expire.
    with state.claims() as claims:
        claimed = claims.claim(state.take()[:1000])
        claims.complete([completed(run) for run in claimed])
    late = [new_run(f"late/{n}", options=RunOptions(ttl_s=0.01)) for n in range(3_000)]
    state.accept(*late)

    def have_expired() -> bool:
        keeper.tick(state.connection, detector)
        return state.statuses().count("expired") == 3_000

    state.wait_for(have_expired)


def test_a_transaction_takes_few_locks_however_many_its_keys(state: RunState) -> None:
    many = [("work", f"key/{n}") for n in range(10_000)]
    few = many[: keys.MOST_KEYS_LOCKED]
    for wanted, count in ((many, 1), (few, len(few) + 1), ([("work", None)], 0)):
        with state.connection.transaction():
            state.connection.execute(keys.LOCK, keys.lock_parameters(wanted))
            assert state.rows(LOCKS) == [count]


def test_transactions_of_few_and_of_many_keys_exclude_each_other(
    state: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "MOST_KEYS_LOCKED", 3)
    seed = random.randrange(10**6)
    print("seed", seed)
    failed: list[BaseException] = []

    def work(number: int) -> None:
        rng = random.Random(seed + number)
        try:
            with run_state(state.settings) as own, own.claims(f"worker-{number}") as claims:
                for _ in range(15):
                    count = rng.choice([1, 2, 8])
                    own.accept(*(new_run(f"key/{rng.randrange(12)}") for _ in range(count)))
                    ready = own.rows(
                        "SELECT id FROM triggerkit.runs WHERE status = 'queued' AND NOT blocked"
                    )
                    claimed = claims.claim(rng.sample(ready, min(len(ready), rng.choice([1, 8]))))
                    claims.complete([completed(run) for run in claimed])
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=[n]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert state.broken_keys() == []

"""`/metrics`: figures of the state in Prometheus' format, each of them documented."""

from __future__ import annotations

import asyncio
import re
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import ROOT
from tests.integration.consumers.kept_log import fill
from tests.integration.pipeline import declare, execute
from tests.integration.serving import Site, serving
from tests.receiver import Receiver
from triggerkit.consumers.definition import changes
from triggerkit.settings import Settings
from triggerkit.web import metrics as metrics_module
from triggerkit.web.application import Application

DEPLOY = ROOT / "docs" / "deploy.md"

TOKEN = "a token of the metrics tests"


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "FRESH_S", 0.0)


@pytest.fixture
def captured(settings: Settings) -> Settings:
    """A database with a consumer of `items` that is 20 changes behind."""

    async def make() -> None:
        async with Receiver.start() as receiver:
            await execute(settings, "CREATE TABLE items (id bigint PRIMARY KEY, name text)")
            await declare(settings, receiver, changes("items"), "behind")

    asyncio.run(make())
    with psycopg.connect(settings.state_dsn) as connection:
        row = connection.execute("SELECT id FROM triggerkit.databases").fetchone()
    assert row is not None
    asyncio.run(fill(settings.state_dsn, row[0], 20))
    return settings


def scrape(site: Site, headers: dict[str, str] | None = None) -> str:
    request = Request(f"http://127.0.0.1:{site.port}/metrics", headers=headers or {})
    with urlopen(request, timeout=15) as response:
        return str(response.read().decode())


def values(text: str) -> dict[tuple[str, ...], float]:
    """Each sample's value by its name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_way_is_measured(captured: Settings) -> None:
    def change(statement: str) -> None:
        with psycopg.connect(captured.state_dsn, autocommit=True) as connection:
            connection.execute(statement)

    change(
        "INSERT INTO triggerkit.backfills (consumer_id, schema_name, table_name, rows_read, "
        "rows_estimated) SELECT id, 'public', 'items', 7, 70 FROM triggerkit.consumers"
    )
    change(
        "INSERT INTO triggerkit.parked (consumer_id, partition, position, key, body, reason, "
        "state) SELECT id, 0, 1, 'k', '{}', 'r', 'blocked' FROM triggerkit.consumers"
    )
    change(
        "INSERT INTO triggerkit.runs (id, task, queue, status, max_attempts, payload) "
        "SELECT 'run_' || n, 't', 'slow', CASE n WHEN 1 THEN 'executing' ELSE 'queued' END, 1, "
        "'{}' FROM generate_series(1, 3) n"
    )
    change(
        "INSERT INTO triggerkit.endpoints (name, url, local, managed_by) VALUES "
        "('laptop', 'http://localhost/a', true, 'api'), ('away', 'http://localhost/b', true, 'api')"
    )
    change("INSERT INTO triggerkit.tunnel_tokens (name, digest) VALUES ('alice', '')")
    change(
        "INSERT INTO triggerkit.tunnels (endpoint_id, token, instance, serve, port, is_shared, "
        "seen_at) SELECT id, 'alice', 'i', 's', 3001, false, CASE name WHEN 'laptop' THEN now() "
        "ELSE now() - interval '1 min' END FROM triggerkit.endpoints WHERE local"
    )
    with serving(Application(captured, [], None)) as site:
        found = values(scrape(site))
        name = next(key[1] for key in found if key[0] == "triggerkit_log_entries")
        assert found["triggerkit_log_entries", name] == 20
        assert found["triggerkit_log_bytes", name] > 0
        assert found["triggerkit_slot_active", name] == 0
        assert found["triggerkit_slot_lag_bytes", name] >= 0
        assert found["triggerkit_consumer_lag_messages", "behind"] == 20
        assert found["triggerkit_consumer_lag_seconds", "behind"] > 0
        assert found["triggerkit_consumer_active", "behind"] == 1
        assert found["triggerkit_parked_messages", "behind", "blocked"] == 1
        assert found["triggerkit_parked_messages", "behind", "dead"] == 0
        assert found["triggerkit_open_tunnels", "laptop"] == 1
        assert found["triggerkit_open_tunnels", "away"] == 0
        assert found["triggerkit_backfill_rows", "behind", "public.items"] == 7
        assert found["triggerkit_queue_runs", "slow", "queued"] == 2
        assert found["triggerkit_queue_runs", "slow", "executing"] == 1


def test_deliveries_are_counted_once_from_the_first_scrape_on(captured: Settings) -> None:
    def deliver(status: int | None, seconds: float) -> None:
        with psycopg.connect(captured.state_dsn, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO triggerkit.deliveries (consumer_id, partition, first_position, "
                "last_position, batch_id, attempt, messages, sent_at, answered_at, status) "
                "SELECT id, 0, 1, 1, 'b', 1, 5, now() - %s * interval '1 s', now(), %s "
                "FROM triggerkit.consumers",
                [seconds, status],
            )

    with serving(Application(captured, [], None)) as site:
        deliver(200, 1)
        scrape(site)
        deliver(200, 0.02)
        deliver(200, 0.3)
        deliver(503, 100)
        deliver(None, 3)
        for _ in range(3):
            found = values(scrape(site))
        counted = {key[2]: v for key, v in found.items() if key[0] == "triggerkit_deliveries_total"}
        assert counted == {"delivered": 2, "failed": 1, "unanswered": 1}
        assert found["triggerkit_delivered_messages_total", "behind"] == 10
        bucket = "triggerkit_delivery_duration_seconds_bucket"
        assert [found[bucket, "behind", le] for le in ("0.01", "0.025", "0.5", "30.0", "+Inf")] == [
            0, 1, 2, 3, 4,
        ]  # fmt: skip
        total = found["triggerkit_delivery_duration_seconds_sum", "behind"]
        assert total == pytest.approx(103.32, abs=0.01)


def test_a_token_closes_it(captured: Settings) -> None:
    closed = Settings.parse({**captured.environment(), "TRIGGERKIT_METRICS_TOKEN": TOKEN})
    with serving(Application(closed, [], None)) as site:
        for given in ({}, {"Authorization": "Bearer wrong"}):
            with pytest.raises(HTTPError) as refused:
                scrape(site, given)
            assert refused.value.code == 401
        assert "triggerkit_log_bytes" in scrape(site, {"Authorization": f"Bearer {TOKEN}"})


def test_the_table_in_the_documents_has_every_metric_and_no_other(captured: Settings) -> None:
    with serving(Application(captured, [], None)) as site:
        text = scrape(site)
    found = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    listed = dict(re.findall(r"^\| `(triggerkit_\w+)` \| (\w+) \|", DEPLOY.read_text(), re.M))
    assert found == listed

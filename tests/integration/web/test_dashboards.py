"""The files for Grafana and Prometheus ask for what `/metrics` has, by labels that it has."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests import ROOT
from tests.integration.serving import serving
from tests.integration.web.test_metrics import always_fresh, captured, scrape
from triggerkit.settings import Settings
from triggerkit.web.application import Application

__all__ = ["always_fresh", "captured"]

GRAFANA = ROOT / "deploy" / "grafana" / "triggerkit.json"
RULES = ROOT / "deploy" / "prometheus" / "alerts.yaml"

#: A metric with its matchers, and a list of labels.
_METRIC = re.compile(r"(triggerkit_\w+)(?:\{([^}]*)\})?")
_LABELS = re.compile(r"\b(?:by|without|on|ignoring) \(([^)]*)\)")
_LEGEND = re.compile(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}")

#: What of a state with something of everything is measured.
MAKE = """
UPDATE triggerkit.databases SET heartbeat_at = now();
INSERT INTO triggerkit.backfills (consumer_id, schema_name, table_name, rows_read, rows_estimated)
SELECT id, 'public', 'items', 7, 70 FROM triggerkit.consumers;
INSERT INTO triggerkit.parked (consumer_id, partition, position, key, body, reason, state)
SELECT id, 0, 1, 'k', '{}', 'r', 'blocked' FROM triggerkit.consumers;
INSERT INTO triggerkit.runs (id, task, queue, status, max_attempts, payload)
SELECT 'run_' || n, 't', 'slow', 'queued', 1, '{}' FROM generate_series(1, 3) n;
INSERT INTO triggerkit.endpoints (name, url, local, managed_by)
VALUES ('laptop', 'http://127.0.0.1:3001/', true, 'api')
"""

DELIVER = (
    "INSERT INTO triggerkit.deliveries (consumer_id, partition, first_position, last_position, "
    "batch_id, attempt, messages, sent_at, answered_at, status) "
    "SELECT id, 0, 1, 1, 'b', 1, 5, now(), now(), 200 FROM triggerkit.consumers"
)


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(GRAFANA.read_text())["panels"]
    return found


def asked() -> Iterator[tuple[str, set[str]]]:
    """Each expression, with the labels that are shown of it."""
    for panel in panels():
        for target in panel.get("targets", []):
            yield target["expr"], set(_LEGEND.findall(target["legendFormat"]))
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["expr"], set(_LEGEND.findall(rule["annotations"]["summary"]))


@pytest.fixture
def measured(captured: Settings) -> dict[str, set[str]]:
    """The labels of each sample that `/metrics` has."""
    with psycopg.connect(captured.state_dsn, autocommit=True) as connection:
        connection.execute(MAKE)
        with serving(Application(captured, [], None)) as site:
            scrape(site)
            connection.execute(DELIVER.encode())
            scrape(site)
            text = scrape(site)
    found: defaultdict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(text):
        # What is measured only on some servers has no sample here.
        found[family.name] |= set()
        for sample in family.samples:
            found[sample.name] |= sample.labels.keys()
    # Only with max_slot_wal_keep_size.
    found["triggerkit_slot_safe_wal_bytes"] |= {"database"}
    return found


def test_every_query_asks_for_what_is_measured(measured: dict[str, set[str]]) -> None:
    count = 0
    for expression, shown in asked():
        names = _METRIC.findall(expression)
        assert names, expression
        labels = set[str]()
        for name, matchers in names:
            assert name in measured, f"{name} of: {expression}"
            labels |= measured[name]
            for label in re.findall(r"(\w+) ?[=!]~?", matchers):
                assert label in measured[name], f"{name} has no {label}: {expression}"
        for listed in _LABELS.findall(expression):
            grouped = {label.strip() for label in listed.split(",")}
            assert grouped <= labels, expression
            assert shown <= grouped, f"what is shown is grouped away: {expression}"
        count += 1
    assert count >= 25


def test_variables_ask_for_what_is_measured(measured: dict[str, set[str]]) -> None:
    listed = json.loads(GRAFANA.read_text())["templating"]["list"]
    variables = {one["name"]: one.get("definition", "") for one in listed}
    for name, definition in variables.items():
        if name == "datasource":
            continue
        found = re.fullmatch(r"label_values\((\w+), (\w+)\)", definition)
        assert found is not None
        assert found[2] in measured[found[1]]
    used = set(re.findall(r"\$(\w+)", GRAFANA.read_text())) - {"__rate_interval", "__all"}
    assert used | {"datasource"} == set(variables)


def test_every_metric_is_on_the_dashboard() -> None:
    text = GRAFANA.read_text()
    documented = re.findall(
        r"^\| `(triggerkit_\w+)` \| \w+ \| \w", (ROOT / "docs" / "deploy.md").read_text(), re.M
    )
    # A number that only its size says something of.
    missing = [name for name in documented if name not in text]
    assert missing == ["triggerkit_log_entries"]


def test_panels_do_not_lie_on_each_other() -> None:
    places = [panel["gridPos"] for panel in panels()]
    taken = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken))
    assert all(x < 24 for x, _ in taken)
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))

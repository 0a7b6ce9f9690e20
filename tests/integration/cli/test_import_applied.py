"""What `triggerkit import` writes of a whole `sequin.yaml` is planned and applied as it is."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner, Result

from tests.integration.pipeline import execute
from triggerkit.cli.main import application
from triggerkit.settings import Settings
from triggerkit.tasks.declare import declared

TABLES = """
CREATE TABLE posts (id int PRIMARY KEY, author text, state text, updated_at timestamptz);
CREATE TABLE "Odd.Name ""x"" y" (id int PRIMARY KEY);
CREATE TABLE "Ünïcode Table" (id int PRIMARY KEY);
CREATE SCHEMA "Sales-EU";
CREATE TABLE "Sales-EU"."select" (id int PRIMARY KEY);
"""

FILE = """
account: {name: acme}
databases:
  - name: shop
    hostname: ${DB_HOST}
    password: |-
      ${DB_PASSWORD}
    slot_name: sequin_slot
http_endpoints:
  - name: app
    url: ${APP_URL:-http://127.0.0.1:3001/}
    headers: {X-From: sequin}
    encrypted_headers:
      - {key: Authorization, value: Bearer a very secret token}
  - {name: laptop, local: true, path: hook}
  - {name: slash, url: "http://127.0.0.1:3001/a?b=c"}
sequences:
  - {name: seq, table_schema: Sales-EU, table_name: select, sort_column_name: id}
base: &base
  database: shop
  batch_size: 10
  max_retry_count: 4
  actions: [insert, update]
sinks:
  - &first
    <<: *base
    name: app
    source: {include_tables: [public.posts]}
    annotations: {day: 2026-01-31, on: on, deep: {list: [1, null], none: ~}}
    destination: {type: webhook, http_endpoint: app, http_endpoint_path: /api/posts}
  - <<: *first
    name: _second
    message_grouping: true
  - name: filtered
    table: posts
    filters:
      - {column_name: state, operator: IN, comparison_value: [new, "5"]}
      - {column_name: author, operator: IS NOT NULL}
      - {column_name: updated_at, operator: ">=", comparison_value: 2026-01-31}
    destination: {type: webhook, http_endpoint: slash, batch: false}
  - name: odd
    tables:
      - {name: 'public."Odd.Name ""x"" y"'}
      - {name: public.Ünïcode Table}
    destination: {type: sequin_stream}
  - name: grouped
    tables: [{name: posts, group_column_names: [author]}]
    status: disabled
    destination: {type: webhook, http_endpoint: laptop}
  - {name: everything, destination: {type: sequin_stream}}
  - {name: queue, table: posts, destination: {type: sqs, secret_access_key: a key of Amazon}}
webhook_subscriptions:
  - name: old
    sequence: seq
    http_endpoint: app
    consumer_start: {position: beginning}
functions:
  - {name: route, type: routing, sink_type: webhook, file: route.exs}
"""


@pytest.fixture
def folder(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("APP_AUTHORIZATION", "Bearer a secret of the tests")
    monkeypatch.setenv("TRIGGERKIT_ENCRYPTION_KEY", secrets.token_urlsafe(32))
    asyncio.run(execute(settings, TABLES))
    # Those of other projects that tests import.
    declared.clear()
    (tmp_path / "sequin.yaml").write_text(FILE)
    return tmp_path


def typed(*words: str) -> Result:
    done = CliRunner().invoke(application(words[0]), list(words))
    assert done.exception is None, (words, done.output, done.exception)
    return done


def test_what_is_imported_is_planned_and_applied(folder: Path, settings: Settings) -> None:
    told = typed("import", "sequin.yaml").output
    assert "a very secret token" not in told + (folder / "triggerkit.toml").read_text()
    assert "set in .env: TRIGGERKIT_SLOT=sequin_slot, DATABASE_URL=, APP_AUTHORIZATION=, " in told
    assert "TRIGGERKIT_ENCRYPTION_KEY=" in told
    typed("plan")
    typed("apply")
    assert typed("plan").output == "nothing to change\n"
    query = """
        SELECT c.name, e.name, e.url, c.definition -> 'tables' FROM triggerkit.consumers c
        LEFT JOIN triggerkit.endpoints e ON e.id = c.endpoint_id ORDER BY c.name
    """
    with psycopg.connect(settings.state_dsn) as connection:
        found = {name: tuple(rest) for name, *rest in connection.execute(query).fetchall()}
    base = "http://127.0.0.1:3001"
    assert found == {
        "_second": ("second", f"{base}/api/posts", ["public.posts"]),
        "app": ("app_path", f"{base}/api/posts", ["public.posts"]),
        "filtered": ("slash", f"{base}/a?b=c", ["public.posts"]),
        "grouped": ("laptop", "http://localhost/hook", ["public.posts"]),
        "odd": (None, None, ['public."Odd.Name ""x"" y"', "public.Ünïcode Table"]),
        "old": ("app", f"{base}/", ["Sales-EU.select"]),
    }

"""`sequin.yaml` as `triggerkit.toml`: what is taken, what is named, and what is refused."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from triggerkit.compat.sequin.configuration.convert import convert
from triggerkit.compat.sequin.configuration.document import MOST_VALUES, read_document
from triggerkit.compat.sequin.configuration.report import Imported
from triggerkit.compat.sequin.configuration.toml import toml_of
from triggerkit.consumers.declare.declaration import read_file
from triggerkit.errors import ConfigurationError

WHOLE = """
account:
  name: acme
users:
  - email: ann@example.com
    password: a password of Ann
databases:
  - name: shop
    hostname: ${DB_HOST:-localhost}
    database: shop
    username: postgres
    password: ${DB_PASSWORD}
    slot: {name: sequin_slot, create_if_not_exists: true}
    publication: {name: sequin_pub}
  - name: second
    hostname: other
http_endpoints:
  - name: app
    url: ${APP_URL:-http://127.0.0.1:3001}
    headers:
      - {key: X-From, value: sequin}
    encrypted_headers:
      - {key: Authorization, value: Bearer a very secret token}
      - {key: X-Other, value: "Bearer ${OTHER}"}
  - name: laptop
    local: "true"
    path: /hook
base: &base
  database: shop
  batch_size: 10
  max_retry_count: 4
sinks:
  - <<: *base
    name: posts
    source:
      include_tables: [public.posts]
    actions: [insert, update]
    annotations: {team: "blog"}
    filter: vip
    transform: none
    destination: {type: webhook, http_endpoint: app, http_endpoint_path: /api/posts}
  - name: single
    table: orders
    status: disabled
    message_grouping: false
    destination: {type: webhook, http_endpoint: laptop, batch: false}
  - name: alone
    table: public.orders
    filters:
      - {column_name: status, operator: IN, comparison_value: [paid, sent]}
      - {column_name: gone_at, operator: IS NULL}
    destination: {type: webhook, http_endpoint: app}
  - name: grouped
    tables:
      - {name: public.orders, group_column_names: [account_id]}
    destination: {type: sequin_stream}
  - name: everything
    database: shop
    destination: {type: sequin_stream}
  - name: queue
    table: public.orders
    destination: {type: sqs, queue_url: x, secret_access_key: a key of Amazon}
  - name: nowhere
    table: public.orders
    destination: {type: webhook, http_endpoint: none}
  - name: odd
    table: public.orders
    colour: blue
    destination: {type: sequin_stream}
functions:
  - name: vip
    type: filter
    code: |-
      def filter(action, record, changes, metadata) do
        record["vip"]
      end
"""


def imported(tmp_path: Path, text: str, environment: Mapping[str, str] = {}) -> Imported:
    path = tmp_path / "sequin.yaml"
    path.write_text(text)
    return convert(read_document(path), environment)


def test_a_whole_file_is_taken_and_what_is_not_is_named(tmp_path: Path) -> None:
    found = imported(tmp_path, WHOLE)
    text = toml_of(found, "sequin.yaml")
    written = tomllib.loads(text)
    assert written["endpoints"] == {
        "app": {
            "url": "${APP_URL:-http://127.0.0.1:3001}",
            "headers": {
                "X-From": "sequin",
                "Authorization": "${APP_AUTHORIZATION}",
                "X-Other": "Bearer ${OTHER}",
            },
        },
        "laptop": {"url": "/hook", "local": True},
        "posts": {
            "url": "${APP_URL:-http://127.0.0.1:3001}/api/posts",
            "headers": {
                "X-From": "sequin",
                "Authorization": "${APP_AUTHORIZATION}",
                "X-Other": "Bearer ${OTHER}",
            },
        },
    }
    assert written["consumers"] == {
        "posts": {
            "kind": "changes",
            "tables": ["public.posts"],
            "annotations": {"team": "blog"},
            "actions": ["insert", "update", "read"],
            "batch_size": 10,
            "max_attempts": 5,
            "on_exhausted": "skip",
            "endpoint": "posts",
        },
        "single": {
            "kind": "changes",
            "tables": ["public.orders"],
            "paused": True,
            "batch_size": 1,
            "endpoint": "laptop",
        },
        "alone": {
            "kind": "changes",
            "tables": ["public.orders"],
            "filters": [["status", "in", ["paid", "sent"]], ["gone_at", "is_null"]],
            "always_data": True,
            "endpoint": "app",
        },
        "grouped": {
            "kind": "changes",
            "tables": ["public.orders"],
            "group_by": ["account_id"],
        },
        "odd": {"kind": "changes", "tables": ["public.orders"]},
    }
    told = "\n".join(found.notes)
    for part in (
        "account has no counterpart",
        "users has no counterpart",
        "databases.second: there is one database",
        "http_endpoints.app: the value of the encrypted header Authorization is left out",
        "http_endpoints.laptop: it is local: where its app runs, triggerkit tunnel",
        "sinks.posts: filter has no counterpart: write it in Python",
        "sinks.single: message_grouping",
        "sinks.everything: it follows every table",
        "sinks.queue: the destination 'sqs' has no counterpart",
        "sinks.nowhere.destination: there is no endpoint 'none'",
        "sinks.odd: colour is not known",
        "functions.vip: the filter function is Elixir",
    ):
        assert part in told
    assert not [note for note in found.notes if "base is not known" in note]
    assert "transform" not in told
    assert found.settings["TRIGGERKIT_SLOT"] == "sequin_slot"
    assert found.settings["TRIGGERKIT_PUBLICATION"] == "sequin_pub"
    for secret in ("very secret token", "a password of Ann", "a key of Amazon"):
        assert secret not in text + told + str(found.settings)
    environment = {"APP_AUTHORIZATION": "a", "OTHER": "b"}
    declared, endpoints = read_file(written["endpoints"], written["consumers"], environment)
    assert len(declared) == 5
    assert [(one.url, one.local) for one in endpoints][1] == ("/hook", True)


def test_variables_are_those_of_the_environment_and_a_missing_one_is_named(tmp_path: Path) -> None:
    text = """
sinks:
  - name: ${NAME}
    table: ${TABLE}
    destination: {type: sequin_stream}
  - name: other
    table: ${TABLE:-public.t}
    destination: {type: sequin_stream}
"""
    found = imported(tmp_path, text, {"NAME": "named"})
    assert list(found.consumers) == ["other"]
    assert "sinks.${NAME}: table needs the variable TABLE, which is not set; it is left out" in (
        found.notes
    )
    found = imported(tmp_path, text, {"NAME": "named", "TABLE": "public.posts"})
    assert found.consumers["named"]["tables"] == ["public.posts"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("- a\n", "no sequin.yaml"),
        ("sinks: [\n", "line 2, column 1"),
        ("a: 1\nsinks: []\nsinks: []\n", "line 3: 'sinks' is there twice"),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("a: *none\n", "found undefined alias"),
        ("a: &a [*a]\n", "more than"),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_place(
    tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        imported(tmp_path, text)


def test_aliases_of_aliases_are_counted(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 2]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    with pytest.raises(ConfigurationError, match=f"more than {MOST_VALUES:,} values"):
        imported(tmp_path, "\n".join(lines))


@pytest.mark.parametrize(
    "text",
    [
        "sinks: 7",
        "sinks: {a: b}",
        "sinks: [7, null, [], {}]",
        "sinks: [{name: [1], table: {}, destination: 7}]",
        "sinks: [{name: a, table: public.t, batch_size: many, destination: {type: sequin_stream}}]",
        "sinks: [{name: 'a b', table: public.t, destination: {type: sequin_stream}}]",
        "sinks: [{name: a, table: public.t, destination: {type: [1]}}]",
        "sinks: [{name: a, filters: [{column_name: x, operator: '~'}], table: t}]",
        "http_endpoints: [{name: a}, {url: x}, {name: b, webhook.site: 'true'}, 7]",
        "http_endpoints: [{name: a, url: x, headers: [7]}]",
        "databases: [7, {slot: 7}]",
        "functions: [{name: a, type: path, path: record}]",
    ],
)
def test_whatever_a_file_says_is_taken_or_named(tmp_path: Path, text: str) -> None:
    found = imported(tmp_path, text)
    assert found.notes
    tomllib.loads(toml_of(found, "odd\nname"))


def test_texts_are_written_as_toml_reads_them(tmp_path: Path) -> None:
    odd = 'a "quoted" \\ back\nline\ttab\x7f é 😀'
    found = Imported(endpoints={'na"me.1': {"url": odd, "headers": {"a b": odd}}})
    written: Any = tomllib.loads(toml_of(found, "x"))
    assert written["endpoints"] == {'na"me.1': {"url": odd, "headers": {"a b": odd}}}

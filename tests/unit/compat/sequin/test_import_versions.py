"""`sequin.yaml` of each version that there was, with names that clash and YAML at its edges."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit.compat.sequin.test_import import imported
from triggerkit.compat.sequin.configuration.convert import convert
from triggerkit.compat.sequin.configuration.document import read_document
from triggerkit.compat.sequin.configuration.endpoints import with_path
from triggerkit.compat.sequin.configuration.report import Imported
from triggerkit.compat.sequin.configuration.toml import toml_of
from triggerkit.consumers.declare.declaration import read_file
from triggerkit.errors import ConfigurationError


def written(found: Imported) -> Mapping[str, Any]:
    """What the file says, which has to be one that `plan` reads."""
    tables = tomllib.loads(toml_of(found, "sequin.yaml"))
    names = [name for name, value in found.settings.items() if value is None]
    read_file(tables.get("endpoints", {}), tables.get("consumers", {}), dict.fromkeys(names, "x"))
    return tables


def test_consumers_of_the_first_versions_are_taken(tmp_path: Path) -> None:
    found = imported(
        tmp_path,
        """
databases:
  - {name: shop, hostname: localhost, slot_name: old_slot, publication_name: old_pub}
http_endpoints:
  - {name: app, url: "http://127.0.0.1:3001"}
sequences:
  - {name: people, database: shop, table_schema: hr, table_name: "People.All",
     sort_column_name: updated_at}
  - {name: orders, database: shop, table_name: orders}
sink_consumers:
  - name: pushed
    table: public.users
    sink: {type: http_push, http_endpoint: app}
webhook_subscriptions:
  - name: subscribed
    sequence: people
    http_endpoint: app
    http_endpoint_path: /hook
    consumer_start: {position: beginning}
http_pull_consumers:
  - {name: pulled, sequence: orders, max_ack_pending: 10}
  - {name: lost, sequence: none}
transforms:
  - {name: only_record, transform: {type: path, path: record}}
""",
    )
    tables = written(found)
    assert tables["consumers"] == {
        "pushed": {
            "kind": "changes",
            "tables": ["public.users"],
            "always_data": True,
            "endpoint": "app",
        },
        "subscribed": {
            "kind": "changes",
            "tables": ['hr."People.All"'],
            "sort_by": "updated_at",
            "start": "beginning",
            "always_data": True,
            "endpoint": "subscribed",
        },
        "pulled": {"kind": "changes", "tables": ["public.orders"]},
    }
    assert found.settings["TRIGGERKIT_SLOT"] == "old_slot"
    assert found.settings["TRIGGERKIT_PUBLICATION"] == "old_pub"
    told = "\n".join(found.notes)
    assert "functions" not in told
    for part in (
        "http_pull_consumers.lost: there is no sequence 'none' here",
        "transforms.only_record: the path function is a path",
    ):
        assert part in told


SINK = "{name: %s, table: public.t, destination: {type: webhook, http_endpoint: %s%s}}"


def test_an_endpoint_of_a_sinks_name_is_not_changed_by_the_sinks_path(tmp_path: Path) -> None:
    found = imported(
        tmp_path,
        f"""
http_endpoints:
  - {{name: hook, url: "http://127.0.0.1:3001"}}
sinks:
  - {SINK % ("hook", "hook", ", http_endpoint_path: /a")}
  - {SINK % ("other", "hook", "")}
""",
    )
    tables = written(found)
    assert {name: values["url"] for name, values in tables["endpoints"].items()} == {
        "hook": "http://127.0.0.1:3001",
        "hook_path": "http://127.0.0.1:3001/a",
    }
    assert [one["endpoint"] for one in tables["consumers"].values()] == ["hook_path", "hook"]


def test_of_two_with_one_name_the_second_is_told_and_left_out(tmp_path: Path) -> None:
    found = imported(
        tmp_path,
        f"""
http_endpoints:
  - {{name: app, url: "http://127.0.0.1:1"}}
  - {{name: app, url: "http://127.0.0.1:2"}}
sinks:
  - {SINK % ("one", "app", "")}
  - {{name: one, table: public.other, destination: {{type: sequin_stream}}}}
""",
    )
    tables = written(found)
    assert tables["endpoints"] == {"app": {"url": "http://127.0.0.1:1"}}
    assert tables["consumers"]["one"]["tables"] == ["public.t"]
    assert found.notes == [
        "http_endpoints.app: another endpoint has this name; it is left out",
        "sinks.one: another sink has this name; it is left out",
    ]


def test_each_secret_has_a_variable_of_its_own(tmp_path: Path) -> None:
    headers = "encrypted_headers: [{key: Token, value: %s}]"
    found = imported(
        tmp_path,
        f"""
http_endpoints:
  - {{name: a-b, url: "http://127.0.0.1:1", {headers % "one"}}}
  - {{name: a_b, url: "http://127.0.0.1:2", {headers % "two"}}}
  - {{name: 1a, url: "http://127.0.0.1:3", {headers % "three"}}}
""",
    )
    endpoints = written(found)["endpoints"]
    assert [one["headers"]["Token"] for one in endpoints.values()] == [
        "${A_B_TOKEN}",
        "${A_B_TOKEN_2}",
        "${ENDPOINT_1A_TOKEN}",
    ]
    own = {"TRIGGERKIT_ENCRYPTION_KEY"}
    assert set(found.settings) - own == {"A_B_TOKEN", "A_B_TOKEN_2", "ENDPOINT_1A_TOKEN"}


def test_sinks_of_another_database_are_left_out(tmp_path: Path) -> None:
    found = imported(
        tmp_path,
        """
databases: [{name: first}, {name: second}]
sinks:
  - {name: a, database: first, table: t, destination: {type: sequin_stream}}
  - {name: b, database: second, table: t, destination: {type: sequin_stream}}
""",
    )
    assert list(written(found)["consumers"]) == ["a"]
    assert (
        "sinks.b: it is of another database: run another installation for it; it is left out"
        in (found.notes)
    )


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        ('name: "my hook", url: "http://127.0.0.1"', "an endpoint's name has"),
        ('name: app, url: "127.0.0.1:3001"', "its url begins neither with http://"),
        ('name: app, url: "http://ann:secret@127.0.0.1"', "must not have a user name or password"),
        (
            'name: app, url: "http://127.0.0.1", headers: {Host: x}',
            "the header Host is set by the sender",
        ),
        (
            'name: app, url: "http://127.0.0.1", headers: {"a b": x}',
            "'a b' is not a valid header name",
        ),
        ('name: app, local: true, path: "a b"', "must be percent-encoded"),
    ],
)
def test_an_endpoint_that_plan_would_refuse_is_told_and_its_sinks_left_out(
    tmp_path: Path, endpoint: str, told: str
) -> None:
    found = imported(
        tmp_path,
        f"""
http_endpoints: [{{{endpoint}}}]
sinks:
  - {SINK % ("a", '"my hook"' if "my hook" in endpoint else "app", ", http_endpoint_path: /x")}
  - {{name: b, table: public.t, destination: {{type: sequin_stream}}}}
""",
    )
    tables = written(found)
    assert "endpoints" not in tables
    assert list(tables["consumers"]) == ["b"]
    assert told in found.notes[-2], found.notes
    assert "ann" not in str(found.notes)


def test_the_endpoint_of_a_sink_that_is_left_out_is_not_written(tmp_path: Path) -> None:
    found = imported(
        tmp_path,
        """
http_endpoints: [{name: app, url: "http://127.0.0.1"}]
sinks:
  - {name: a b, table: t, destination: {type: webhook, http_endpoint: app, http_endpoint_path: /x}}
  - {name: all, destination: {type: webhook, http_endpoint: app, http_endpoint_path: /y}}
""",
    )
    tables = written(found)
    assert (list(tables["endpoints"]), "consumers" in tables) == (["app"], False)


def test_plain_words_are_texts_as_in_yaml_1_2(tmp_path: Path) -> None:
    found = imported(
        tmp_path,
        """
sinks:
  - name: on
    table: 2024-01-01
    annotations: {day: 2024-01-01, at: 2024-01-01 10:00:00, code: 012, no: off, none: null,
                  list: [1, null, 1.5, yes], empty: {none: ~}, 7: number}
    destination: {type: sequin_stream}
""",
    )
    consumers = written(found)["consumers"]
    assert consumers["on"] == {
        "kind": "changes",
        "tables": ["public.2024-01-01"],
        "annotations": {
            "day": "2024-01-01",
            "at": "2024-01-01 10:00:00",
            "code": "012",
            "no": "off",
            "list": [1, 1.5, "yes"],
            "empty": {},
            "7": "number",
        },
    }


def test_what_is_merged_may_be_merged_again(tmp_path: Path) -> None:
    found = imported(
        tmp_path,
        """
defaults: &defaults
  inner:
    deepest: &deepest {<<: {batch_size: 1}, batch_size: 2, destination: {type: sequin_stream}}
base: &base {<<: *deepest, table: public.t}
sinks:
  - {<<: [*base, {table: public.other}], name: a}
""",
    )
    assert written(found)["consumers"] == {"a": {"kind": "changes", "tables": ["public.t"]}}


def test_merges_of_merges_are_read_in_no_time(tmp_path: Path) -> None:
    lines = ["a0: &a0 {name: x}"]
    lines += [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 60)]
    found = imported(tmp_path, "\n".join(lines))
    assert found.consumers == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sinks: []\n---\nsinks: []\n", "line 2, column 1: but found another document"),
        ("sinks:\n\t- a\n", "line 2, column 1: found character"),
        ("a: !!set {x, y}\n", "makes a set"),
        ("a: !!binary aGk=\n", "makes a bytes"),
        ("a: !!float .nan\n", "makes a float"),
        ("a: " + "{a: " * 3000 + "1" + "}" * 3000, "it nests too deep"),
        ("a: {{x: 1}: 2}\n", "line 1, column 5: found unhashable key"),
        ("sinks:\n  - {name: a, name: b}\n", "line 2: 'name' is there twice"),
    ],
)
def test_yaml_at_its_edges_is_refused_in_words(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        imported(tmp_path, text)


def test_windows_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "sequin.yaml"
    text = "sinks:\n  - {name: a, table: t, destination: {type: sequin_stream}}\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert list(convert(read_document(path), {}).consumers) == ["a"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h", "http://h/x"),
        ("http://h//", "http://h/x"),
        ("http://h/a?b=c/", "http://h/a/x?b=c/"),
        ("${URL}", "${URL}/x"),
        ("${URL}/", "${URL}/x"),
        ("${URL:-http://h/}", "${URL:-http://h}/x"),
        ("${URL:-http://h/?a=b}", "${URL:-http://h/?a=b}/x"),
        ("${URL}/a?b=c", "${URL}/a/x?b=c"),
    ],
)
def test_a_sinks_path_stands_behind_the_address(url: str, expected: str) -> None:
    assert with_path(url, "/x") == with_path(url, "x") == expected
    assert with_path(url, "/") == with_path(url, "") == url

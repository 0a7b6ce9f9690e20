"""Recorded rows become changes, by the relation that was announced before them."""

from __future__ import annotations

from struct import pack

import orjson
import pytest

from tests.unit.recordings import STEPS
from tests.unit.replication.codec.announced import as_json, compiled
from triggerkit.change import RowChange
from triggerkit.errors import UnknownRelation
from triggerkit.replication.codec.compiled import CompiledRelation
from triggerkit.replication.codec.messages import Delete, Insert, Relation, Truncate, Update
from triggerkit.replication.codec.pgoutput import decode
from triggerkit.replication.codec.relations import RelationCache
from triggerkit.values import array_decoder, decode_text, decoder_for

MOMENT = "2026-01-01T00:00:00.000000Z"


def play(step: str, cache: RelationCache | None = None) -> list[RowChange]:
    """The changes of a recorded step, each computed in both ways, which agree."""
    cache = cache or known_relations(step)
    changes = []
    for payload in STEPS[step].payloads:
        message = decode(payload)
        if isinstance(message, Relation):
            cache.put(compiled(message))
        elif isinstance(message, Truncate):
            changes += cache.changes(message)
        elif isinstance(message, Insert | Update | Delete):
            decoded = cache.row_changes(payload)
            assert as_json(decoded) == as_json(cache.changes(message))
            changes += decoded
    return changes


def known_relations(step: str) -> RelationCache:
    """The relations announced in the steps before `step`."""
    cache = RelationCache()
    for name, earlier in STEPS.items():
        if name == step:
            break
        for message in map(decode, earlier.payloads):
            if isinstance(message, Relation):
                cache.put(compiled(message))
    return cache


def test_an_insert_is_a_record_ready_for_json() -> None:
    assert play("insert") == [
        RowChange(
            "public",
            "posts",
            "insert",
            ("1",),
            {
                "id": 1,
                "title": "Ünïcødé",
                "body": "body",
                "score": -7,
                "updated_at": "2026-11-21T20:19:34.123456Z",
            },
        )
    ]


def test_rows_come_in_order() -> None:
    assert [change.key for change in play("insert many")] == [(str(i),) for i in range(10, 15)]
    assert [change.key for change in play("copy")] == [("20",), ("21",), ("22",)]


def test_an_update_without_an_old_row_has_empty_changes() -> None:
    (change,) = play("update")
    assert change.action == "update"
    assert change.changes == {}
    assert change.record is not None
    assert change.record["score"] == 8
    assert change.unchanged == ()


def test_unchanged_toast_is_absent_and_named() -> None:
    (change,) = play("update unchanged toast and nulls")
    assert change.record == {"id": 4, "title": None, "score": None, "updated_at": None}
    assert change.unchanged == ("body",)


def test_a_new_key_is_a_delete_and_an_insert() -> None:
    delete, insert = play("update key")
    assert delete == RowChange("public", "posts", "delete", ("1",), {"id": 1})
    # What the key was is kept with the insert.
    assert (insert.action, insert.key, insert.changes) == ("insert", ("5",), ("1",))
    assert insert.record is not None
    assert insert.record["title"] == "moved"


def test_a_new_key_does_not_make_unchanged_toast_null() -> None:
    delete, insert = play("update key with unchanged toast")
    assert delete.key == ("4",)
    assert insert.record == {"id": 40, "title": None, "score": None, "updated_at": None}
    assert insert.unchanged == ("body",)


def test_a_delete_has_only_the_key() -> None:
    assert play("delete") == [RowChange("public", "posts", "delete", ("5",), {"id": 5})]


def test_under_full_an_update_has_old_values_and_the_toast_of_the_old_row() -> None:
    (change,) = play("full update with unchanged toast")
    assert change == RowChange(
        "public",
        "whole",
        "update",
        ("1",),
        {"id": 1, "title": None, "body": "y" * 2100, "score": 2, "updated_at": MOMENT},
        {"title": "large", "score": 1},
    )


def test_under_full_an_update_of_nothing_changes_nothing() -> None:
    """It is known, other than what changed in an update whose old row is not in the WAL."""
    (change,) = play("full update of nothing")
    assert change.changes is None
    assert change.unchanged == ()


def test_under_full_changed_toast_is_a_change() -> None:
    (change,) = play("full update of toast")
    assert change.changes == {"body": "y" * 2100}
    assert change.record is not None
    assert change.record["body"] == "z" * 2100


def test_under_full_a_new_key_is_a_delete_of_the_old_row_and_an_insert() -> None:
    delete, insert = play("full update key")
    row = {"title": None, "body": "z" * 2100, "score": 2, "updated_at": MOMENT}
    assert delete == RowChange("public", "whole", "delete", ("1",), {"id": 1, **row})
    assert insert == RowChange("public", "whole", "insert", ("6",), {"id": 6, **row}, ("1",))


def test_under_full_a_delete_has_the_old_row() -> None:
    (change,) = play("full delete")
    assert (change.action, change.key, change.changes) == ("delete", ("6",), None)
    assert change.record is not None
    assert change.record["body"] == "z" * 2100


def test_keys_of_two_columns_are_in_the_order_of_the_primary_key() -> None:
    changes = play("two key columns")
    assert [(change.action, change.key) for change in changes] == [
        ("insert", ("b", "1")),
        ("update", ("b", "1")),
        ("delete", ("b", "1")),
        ("insert", ("b", "2")),
        ("delete", ("b", "2")),
    ]
    assert changes[-1].record == {"a": 2, "b": "b"}


def test_a_key_in_toast_comes_with_the_old_key_and_is_no_new_key() -> None:
    _, update, delete, insert = play("key in toast")
    assert update == RowChange(
        "public", "long_keys", "update", ("k" * 2100,), {"id": "k" * 2100, "n": 2}, {}
    )
    assert (delete.action, delete.key) == ("delete", ("k" * 2100,))
    assert (insert.action, insert.key) == ("insert", ("l" * 2100,))


def test_the_key_is_what_deletes_carry_when_the_identity_is_another_index() -> None:
    assert [(change.action, change.key) for change in play("identity by index")] == [
        ("insert", ("a@example.com",)),
        ("update", ("a@example.com",)),
        ("update", ("a@example.com",)),
        ("delete", ("a@example.com",)),
        ("insert", ("b@example.com",)),
        ("delete", ("b@example.com",)),
    ]


def test_without_a_primary_key_the_whole_row_is_the_key() -> None:
    assert [(change.action, change.key) for change in play("no primary key")] == [
        ("insert", ("1", "\\N")),
        ("delete", ("1", "\\N")),
        ("insert", ("2", "\\N")),
        ("delete", ("2", "\\N")),
    ]


def test_keys_are_text_as_postgres_prints_it() -> None:
    insert, update = play("time as key")
    assert insert.key == update.key == ("2026-01-01 00:00:00+00",)
    assert insert.record == {"at": MOMENT, "n": 1}


def test_truncate_is_a_change_of_each_table() -> None:
    assert play("truncate") == [
        RowChange("public", "posts", "truncate", (), None),
        RowChange("public", "whole", "truncate", (), None),
        RowChange("triggerkit", "signals", "truncate", (), None),
    ]


def test_each_row_is_read_by_the_relation_in_force() -> None:
    records = [change.record for change in play("alter")]
    empty = {"score": None, "updated_at": None}
    assert records == [
        {"id": 1, "title": "before", "body": None, **empty},
        {"id": 2, "title": "added", "body": None, **empty, "extra": 7},
        {"id": 3, "headline": "renamed", "body": None, **empty, "extra": 7},
        {"id": 4, "headline": "retyped", "body": None, **empty, "score": "many", "extra": 7},
        {"id": 5, "headline": "dropped", **empty, "score": "9", "extra": 7},
    ]


def test_a_row_of_many_types_is_one_json_document() -> None:
    (change,) = play("types")
    assert change.record is not None
    assert change.record["ints"] == [7, 8]
    assert change.record["boxes"] == ["(1,1),(0,0)", None]
    assert change.record["moods"] == '{sad,NULL,"ok, \\"then\\""}'
    assert change.record["positive"] == "7"
    assert change.record["instant"] == "2026-11-21T20:19:34.500000Z"
    assert change.record["real8"] == "NaN"
    document = orjson.dumps(change.record)
    assert b'"docb":{"n": ' + b"1" * 401 + b"}" in document
    assert b'"doc":{"a": 1,  "a": 2}' in document


def test_domains_and_arrays_of_enums_are_decoded_by_facts_of_the_catalog() -> None:
    relation, insert = [
        message
        for message in map(decode, STEPS["types"].payloads)
        if isinstance(message, Relation | Insert)
    ]
    assert isinstance(relation, Relation)
    assert isinstance(insert, Insert)
    oids = {column.name: column.type_oid for column in relation.columns}
    table = CompiledRelation(
        relation,
        ("id",),
        decoders={
            oids["positive"]: decoder_for(23),
            oids["short"]: decoder_for(1043),
            oids["moods"]: array_decoder(decode_text),
        },
    )
    (change,) = table.changes(insert)
    assert change.record is not None
    assert change.record["positive"] == 7
    assert change.record["short"] == "abc"
    assert change.record["moods"] == ["sad", None, 'ok, "then"']


def test_rows_of_a_skipped_relation_are_no_changes_and_not_looked_at() -> None:
    cache = RelationCache()
    cache.skip(7)
    assert cache.row_changes(b"I" + pack("!I", 7) + b"N\0\1not a tuple") == []
    assert cache.changes(Insert(7, [])) == []
    assert cache.changes(Truncate((7,), False, False)) == []
    with pytest.raises(UnknownRelation):
        cache.get(7)


def test_truncate_passes_over_skipped_relations_only() -> None:
    cache = known_relations("truncate")
    *_, truncate = (m for m in map(decode, STEPS["truncate"].payloads) if isinstance(m, Truncate))
    for message in map(decode, STEPS["truncate"].payloads):
        if isinstance(message, Relation) and message.schema == "triggerkit":
            cache.skip(message.oid)
    assert [change.table for change in cache.changes(truncate)] == ["posts", "whole"]


def test_skipping_and_decoding_can_change_with_an_announcement() -> None:
    relation, payload = STEPS["own schema"].payloads[1:3]
    announced = decode(relation)
    assert isinstance(announced, Relation)
    cache = RelationCache()
    cache.put(compiled(announced))
    assert len(cache.row_changes(payload)) == 1
    cache.skip(announced.oid)
    assert cache.row_changes(payload) == []
    cache.put(compiled(announced))
    assert len(cache.row_changes(payload)) == 1
    assert cache.get(announced.oid).table == "signals"


def test_a_relation_that_was_not_announced_is_unknown() -> None:
    payload = STEPS["insert"].payloads[2]
    with pytest.raises(UnknownRelation) as caught:
        RelationCache().row_changes(payload)
    insert = decode(payload)
    assert isinstance(insert, Insert)
    assert caught.value.oid == insert.relation_oid
    with pytest.raises(UnknownRelation):
        RelationCache().changes(insert)
    with pytest.raises(UnknownRelation):
        RelationCache().changes(Truncate((5,), False, False))

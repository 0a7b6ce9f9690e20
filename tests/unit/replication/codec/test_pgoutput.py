"""Messages of pgoutput: recorded ones are read, broken ones are malformed and nothing else."""

from __future__ import annotations

from collections import Counter
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.recordings import PAYLOADS, STEPS
from triggerkit.errors import MalformedMessage
from triggerkit.lsn import Lsn
from triggerkit.replication.codec.messages import (
    Begin,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Relation,
    RelationColumn,
    Truncate,
    Type,
    Update,
)
from triggerkit.replication.codec.pgoutput import commit_time, decode
from triggerkit.replication.codec.tuples import UNCHANGED_TOAST


def messages(step: str) -> list[Message]:
    """The messages of a recorded step, without Begin and Commit."""
    decoded = map(decode, STEPS[step].payloads)
    return [message for message in decoded if not isinstance(message, Begin | Commit)]


def insert_of(columns: bytes, count: int = 1) -> bytes:
    return b"I" + pack("!I", 7) + b"N" + pack("!H", count) + columns


def text(value: bytes) -> bytes:
    return b"t" + pack("!I", len(value)) + value


def test_every_recorded_message_is_read() -> None:
    counts = Counter(type(decode(payload)) for payload in PAYLOADS)
    assert set(counts) == {
        Begin, Commit, Origin, Relation, Type, Insert, Update, Delete, Truncate, LogicalMessage,
    }  # fmt: skip
    assert counts[Begin] == counts[Commit]


def test_the_result_is_the_same_from_foreign_memory() -> None:
    for payload in PAYLOADS:
        assert decode(memoryview(bytearray(payload))) == decode(payload)


def test_a_transaction_commits_where_its_begin_says() -> None:
    begin, *_, commit = map(decode, STEPS["insert many"].payloads)
    assert isinstance(begin, Begin)
    assert isinstance(commit, Commit)
    assert begin.final_lsn == commit.commit_lsn < commit.end_lsn
    assert begin.commit_time_us == commit.commit_time_us
    assert isinstance(begin.final_lsn, Lsn)
    assert 0 < begin.xid < 2**32
    assert commit_time(begin.commit_time_us).startswith("20")


def test_a_relation_names_its_columns_types_and_key() -> None:
    relation, insert = messages("insert")
    assert isinstance(relation, Relation)
    assert isinstance(insert, Insert)
    assert relation == Relation(
        insert.relation_oid,
        "public",
        "posts",
        "d",
        (
            RelationColumn("id", 20, -1, True),
            RelationColumn("title", 25, -1, False),
            RelationColumn("body", 25, -1, False),
            RelationColumn("score", 23, -1, False),
            RelationColumn("updated_at", 1184, -1, False),
        ),
    )
    moment = b"2026-11-21 20:19:34.123456+00"
    assert insert.new == [b"1", "Ünïcødé".encode(), b"body", b"-7", moment]


def test_nulls_and_empty_texts_differ_even_at_the_end() -> None:
    first, second = messages("insert nulls")
    assert isinstance(first, Insert)
    assert isinstance(second, Insert)
    assert first.new == [b"2", None, None, None, None]
    assert second.new == [b"3", b"", b"", None, None]


def test_copy_gives_a_message_a_row() -> None:
    rows = messages("copy")
    assert [row.new[:2] for row in rows if isinstance(row, Insert)] == [
        [b"20", b"copied"],
        [b"21", None],
        [b"22", b"third"],
    ]


def test_unchanged_toast_is_not_null() -> None:
    (update,) = messages("update unchanged toast and nulls")
    assert isinstance(update, Update)
    assert update.old is None
    assert update.old_kind is None
    assert update.new == [b"4", None, UNCHANGED_TOAST, None, None]


def test_an_update_of_the_key_brings_the_old_key() -> None:
    (update,) = messages("update key with unchanged toast")
    assert isinstance(update, Update)
    assert update.old_kind == "K"
    assert update.old == [b"4", None, None, None, None]
    assert update.new == [b"40", None, UNCHANGED_TOAST, None, None]


def test_an_update_under_full_brings_the_old_row() -> None:
    (update,) = messages("full update with unchanged toast")
    assert isinstance(update, Update)
    assert update.old_kind == "O"
    assert update.old == [b"1", b"large", b"y" * 2100, b"1", b"2026-01-01 00:00:00+00"]
    assert update.new == [b"1", None, UNCHANGED_TOAST, b"2", b"2026-01-01 00:00:00+00"]


def test_deletes_bring_the_key_or_the_row() -> None:
    (by_key,) = messages("delete")
    (by_row,) = messages("full delete")
    assert isinstance(by_key, Delete)
    assert isinstance(by_row, Delete)
    assert (by_key.old_kind, by_key.old) == ("K", [b"5", None, None, None, None])
    assert by_row.old_kind == "O"
    assert by_row.old[2] == b"z" * 2100


def test_truncate_names_all_tables_and_its_options() -> None:
    *relations, truncate = messages("truncate")
    assert isinstance(truncate, Truncate)
    assert truncate.relation_oids == tuple(r.oid for r in relations if isinstance(r, Relation))
    assert len(truncate.relation_oids) == 3
    assert truncate.cascade
    assert truncate.restart_identity
    assert decode(b"T" + pack("!IBI", 1, 0, 5)) == Truncate((5,), False, False)


def test_an_altered_table_is_announced_again() -> None:
    columns = [
        [column.name for column in message.columns]
        for message in messages("alter")
        if isinstance(message, Relation)
    ]
    assert columns == [
        ["id", "title", "body", "score", "updated_at"],
        ["id", "title", "body", "score", "updated_at", "extra"],
        ["id", "headline", "body", "score", "updated_at", "extra"],
        ["id", "headline", "body", "score", "updated_at", "extra"],
        ["id", "headline", "score", "updated_at", "extra"],
    ]


def test_logical_messages_are_in_a_transaction_or_not() -> None:
    inside, outside = messages("messages")
    assert isinstance(inside, LogicalMessage)
    assert isinstance(outside, LogicalMessage)
    assert inside.transactional
    assert (inside.prefix, inside.content) == ("in", b"content of a transaction")
    assert not outside.transactional
    assert (outside.prefix, outside.content) == ("out", b"\x00\xff")
    assert inside.lsn < outside.lsn


def test_a_transaction_from_elsewhere_names_its_origin() -> None:
    assert messages("origin")[0] == Origin(Lsn(0), "elsewhere")


def test_types_that_are_not_built_in_are_announced() -> None:
    names = [(m.schema, m.name) for m in messages("types") if isinstance(m, Type)]
    assert ("public", "mood") in names
    # Of a domain, pgoutput tells the name of its base type.
    assert ("pg_catalog", "varchar") in names


def test_an_empty_schema_is_pg_catalog() -> None:
    relation = decode(b"R" + pack("!I", 9) + b"\0" + b"t\0" + b"d" + pack("!H", 0))
    assert relation == Relation(9, "pg_catalog", "t", "d", ())


def test_a_message_cut_at_any_byte_is_malformed() -> None:
    for payload in PAYLOADS:
        for length in range(len(payload)):
            with pytest.raises(MalformedMessage):
                decode(payload[:length])


@pytest.mark.parametrize("garbage", [b"\0", b"n", b"t\0\0\0\0", b"garbage"])
def test_a_message_with_more_bytes_is_malformed(garbage: bytes) -> None:
    for payload in PAYLOADS:
        with pytest.raises(MalformedMessage):
            decode(payload + garbage)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"S" + bytes(8), id="streaming, of protocol version 2"),
        pytest.param(b"\xff", id="unknown tag"),
        pytest.param(insert_of(b"b" + pack("!I", 1) + b"x"), id="column in binary"),
        pytest.param(insert_of(b"b"), id="binary at the very end"),
        pytest.param(insert_of(b"x"), id="unknown kind of column"),
        pytest.param(insert_of(b"t" + pack("!I", 2**32 - 1) + b"x"), id="oversized length"),
        pytest.param(insert_of(b"t" + pack("!i", -1) + b"x"), id="negative length"),
        pytest.param(insert_of(text(b"x"), count=65_535), id="too many columns"),
        pytest.param(insert_of(b"nn", count=1), id="too few columns"),
        pytest.param(insert_of(b"n").replace(b"N", b"K"), id="insert of a key"),
        pytest.param(b"D" + insert_of(b"n")[1:], id="delete of a new row"),
        pytest.param(b"U" + insert_of(b"n")[1:].replace(b"N", b"K"), id="update without new row"),
        pytest.param(b"U" + insert_of(b"n")[1:] + b"N\0\1n", id="update with two new rows"),
        pytest.param(b"T" + pack("!IB", 2**32 - 1, 0), id="truncate of too many tables"),
        pytest.param(b"Y" + pack("!I", 1) + b"public\0\xff\xfe\0", id="name that is not UTF-8"),
        pytest.param(b"Y" + pack("!I", 1) + b"public\0name", id="name without an end"),
        pytest.param(b"R" + pack("!I", 9) + b"\0t\0\xff\0\0", id="identity that is not ASCII"),
        pytest.param(
            b"M" + pack("!BQ", 1, 1) + b"p\0" + pack("!I", 2**31) + b"x", id="oversized content"
        ),
    ],
)
def test_broken_bytes_are_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(payload)


def test_no_value_is_in_the_message_of_an_error() -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode(insert_of(text(b"secret") + b"x", count=2))
    assert "secret" not in f"{caught.value}{caught.value.__cause__}"


@given(st.sampled_from(PAYLOADS), st.data())
def test_corrupted_bytes_are_read_or_malformed(payload: bytes, data: st.DataObject) -> None:
    corrupted = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 4))):
        corrupted[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(corrupted))
    except MalformedMessage:
        return


@given(st.sampled_from(b"BCORYIUDTM"), st.binary(max_size=80))
def test_random_bytes_are_read_or_malformed(tag: int, rest: bytes) -> None:
    try:
        decode(bytes((tag,)) + rest)
    except MalformedMessage:
        return


@pytest.mark.parametrize(
    ("time_us", "iso"),
    [
        (0, "2000-01-01T00:00:00.000000Z"),
        (846_538_761_127_470, "2026-10-28T21:39:21.127470Z"),
        (-1, "1999-12-31T23:59:59.999999Z"),
    ],
)
def test_commit_times_are_iso_8601_in_utc(time_us: int, iso: str) -> None:
    assert commit_time(time_us) == iso


@pytest.mark.parametrize("time_us", [2**63 - 1, -(2**63)])
def test_a_time_outside_of_all_years_is_malformed(time_us: int) -> None:
    with pytest.raises(MalformedMessage):
        commit_time(time_us)

"""Rows that are malformed, cut short or not text, and that both ways of decoding agree on them."""

from __future__ import annotations

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.recordings import PAYLOADS, STEPS
from tests.unit.replication.codec.announced import as_json, compiled
from triggerkit.errors import MalformedMessage, UnknownRelation
from triggerkit.replication.codec.compiled import CompiledRelation
from triggerkit.replication.codec.messages import Delete, Insert, Relation, RelationColumn, Update
from triggerkit.replication.codec.pgoutput import decode
from triggerkit.replication.codec.relations import RelationCache
from triggerkit.replication.codec.tuples import UNCHANGED_TOAST

ROW_TAGS = b"IUD"

TABLE = CompiledRelation(
    Relation(
        7,
        "public",
        "t",
        "d",
        (
            RelationColumn("id", 25, -1, True),
            RelationColumn("n", 23, -1, False),
            RelationColumn("name", 25, -1, False),
        ),
    ),
    ("id",),
)


def test_the_fault_of_an_undecodable_row_names_its_column_but_no_value() -> None:
    [change] = TABLE.changes(Insert(7, [b"key", b"secret", b"x"]))
    assert (change.action, change.key, change.record) == ("insert", ("key",), None)
    assert change.fault is not None
    assert "'n'" in change.fault
    assert "secret" not in change.fault


@pytest.mark.parametrize(
    "message",
    [
        Insert(7, [b"key", b"1", b"\xff"]),
        Update(7, None, None, [b"key", b"1", b"\xff"]),
        Update(7, "O", [b"key", b"1", b"\xff"], [b"key", b"1", b"x"]),
        Update(7, "K", [b"\xff", None, None], [b"key", b"1", b"x"]),
        Delete(7, "O", [b"key", b"1", b"\xff"]),
        Delete(7, "K", [b"\xff", None, None]),
        Insert(7, [UNCHANGED_TOAST, b"1", b"x"]),
    ],
)
def test_a_value_that_is_not_text_is_a_fault_of_its_row(message: Insert | Update | Delete) -> None:
    [faulty] = [change for change in TABLE.changes(message) if change.fault is not None]
    assert faulty.record is None
    assert faulty.changes is None


@pytest.mark.parametrize(
    "message",
    [
        Insert(7, [b"key"]),
        Insert(7, [b"key", b"1", b"x", b"y"]),
        Insert(7, [UNCHANGED_TOAST]),
        Update(7, "O", [b"key"], [b"key", b"1", b"x"]),
        Update(7, "K", [b"key", None, None], [b"key"]),
        Delete(7, "K", [b"key"]),
        Delete(7, "O", [b"key"]),
    ],
)
def test_a_row_with_another_number_of_columns_is_malformed(
    message: Insert | Update | Delete,
) -> None:
    with pytest.raises(MalformedMessage, match="columns"):
        TABLE.changes(message)


@pytest.mark.parametrize("payload", [b"", b"I\0", STEPS["insert"].payloads[0] + bytes(8)])
def test_only_rows_are_taken_for_rows(payload: bytes) -> None:
    cache = RelationCache()
    cache.put(TABLE)
    with pytest.raises((MalformedMessage, UnknownRelation)):
        cache.row_changes(payload)
    with pytest.raises(MalformedMessage):
        cache.row_changes(b"T" + pack("!I", 7) + b"\0\0\0")


def result(relation: CompiledRelation, payload: bytes, in_one_pass: bool) -> object:
    """The JSON of the changes, or the type of the error, by one way or the other."""
    cache = RelationCache()
    cache.put(relation)
    try:
        if in_one_pass:
            return as_json(cache.row_changes(payload))
        message = decode(payload)
        assert isinstance(message, Insert | Update | Delete)
        return as_json(cache.changes(message))
    except (MalformedMessage, UnknownRelation) as error:
        return type(error)


def rows_and_relations() -> list[tuple[CompiledRelation, bytes]]:
    """Every recorded row with its relation as it was then."""
    rows = []
    relations: dict[bytes, CompiledRelation] = {}
    for payload in PAYLOADS:
        message = decode(payload)
        if isinstance(message, Relation):
            relations[payload[1:5]] = compiled(message)
        elif payload[0] in ROW_TAGS:
            rows.append((relations[payload[1:5]], payload))
    return rows


ROWS = rows_and_relations()

#: An integer may become another by them that Postgres would not print so (` 1`, `1_0`, `-0`,
#: `007`); the way in one pass takes it nevertheless. The same holds for the greatest integer.
BYTES_IN_ODD_INTEGERS = b" \t\n\v\f\r_+-0"

GREATEST_INTEGER = str(2**63 - 1).encode()


def test_both_ways_refuse_what_is_cut_short() -> None:
    for relation, payload in ROWS:
        for length in range(len(payload)):
            for in_one_pass in (True, False):
                assert result(relation, payload[:length], in_one_pass) is MalformedMessage


@given(
    st.sampled_from([row for row in ROWS if GREATEST_INTEGER not in row[1]]),
    st.data(),
)
def test_both_ways_agree_on_corrupted_rows(
    row: tuple[CompiledRelation, bytes], data: st.DataObject
) -> None:
    relation, payload = row
    corrupted = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 4))):
        # The tag stays: other messages do not come here.
        at = data.draw(st.integers(1, len(payload) - 1))
        corrupted[at] = data.draw(st.sampled_from(sorted({*range(256)} - {*BYTES_IN_ODD_INTEGERS})))
    one_pass = result(relation, bytes(corrupted), in_one_pass=True)
    two_passes = result(relation, bytes(corrupted), in_one_pass=False)
    assert one_pass == two_passes

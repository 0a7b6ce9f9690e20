"""What identifies a change, and that a transaction is captured whole, in order, confirmed once."""

from __future__ import annotations

from tests.capture.rig.source import Source

ITEMS = "CREATE TABLE items (id bigint PRIMARY KEY, name text, note text)"


def test_four_rows_of_one_copy_have_one_lsn_and_four_identities(source: Source) -> None:
    source.execute(ITEMS)
    source.follow("items")
    source.copy("items", "1\tone\t\\N\n2\ttwo\t\\N\n3\tthree\t\\N\n4\tfour\t\\N\n")
    parts = source.parts()
    identities = [
        (part.transaction.commit_lsn, index)
        for part in parts
        for index, _ in enumerate(part.changes, part.first_idx)
    ]
    assert len(identities) == len(set(identities)) == 4
    assert len({lsn for lsn, _ in identities}) == 1


def test_statements_of_a_transaction_are_captured_in_order_and_together(source: Source) -> None:
    source.execute(ITEMS)
    source.follow("items")
    source.execute(
        "BEGIN; INSERT INTO items VALUES (1, 'a'); UPDATE items SET name = 'b';"
        "INSERT INTO items VALUES (2, 'c'); DELETE FROM items WHERE id = 1; COMMIT"
    )
    [part] = source.parts()
    assert [(c.action, c.key) for c in part.changes] == [
        ("insert", ("1",)),
        ("update", ("1",)),
        ("insert", ("2",)),
        ("delete", ("1",)),
    ]
    assert part.end_lsn is not None


def test_what_is_rolled_back_is_never_captured(source: Source) -> None:
    source.execute(ITEMS)
    source.follow("items")
    source.execute(
        "BEGIN; INSERT INTO items VALUES (1); SAVEPOINT s; INSERT INTO items VALUES (2);"
        "ROLLBACK TO s; INSERT INTO items VALUES (3); COMMIT",
        "BEGIN; INSERT INTO items VALUES (4); ROLLBACK",
    )
    assert [c.key for c in source.changes()] == [("1",), ("3",)]

"""From the stream into the log: values that the WAL leaves out, and rows that cannot be kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from tests.capture.rig.log import follow_for_log
from tests.capture.rig.source import Source
from triggerkit.log import entry as entry_module
from triggerkit.log import unchanged as unchanged_module
from triggerkit.log import writer as writer_module
from triggerkit.log.entry import Entry, Pending
from triggerkit.log.writer import LogWriter
from triggerkit.replication.capture import TransactionPart

BODY = "é" * 9000
LONG = "7" * 401
LEXEMES = (
    "(SELECT string_agg(concat('w', i, ':', i), ' ')::tsvector FROM generate_series(100, {}) i)"
)

DOCS = (
    "CREATE TABLE docs (id int PRIMARY KEY, body text, meta jsonb, note text);"
    "ALTER TABLE docs ALTER body SET STORAGE EXTERNAL, ALTER meta SET STORAGE EXTERNAL"
)
INSERT = f'INSERT INTO docs VALUES (1, \'{BODY}\', \'{{"n": {LONG}, "t": "{BODY}"}}\')'

Take = Callable[[], Awaitable[list[Entry]]]


@pytest.fixture
def docs(source: Source, database_url: str, database_id: int) -> Source:
    """A source with large documents."""
    source.execute(DOCS)
    follow_for_log(source, database_url, database_id, "docs")
    return source


async def log(writer: LogWriter, parts: list[TransactionPart], flush_every: int) -> list[Entry]:
    """Append `parts`, handing over after every so many changes, and commit."""
    written = 0
    for part in parts:
        for sighting in part.sightings:
            await writer.see(sighting)
        for index, change in enumerate(part.changes, part.first_idx):
            writer.write(Pending(part.transaction, index, change, part.transaction.xid))
            written += 1
            if written % flush_every == 0:
                await writer.flush()
    return await writer.commit(parts[-1].transaction.commit_lsn)


def logged(
    source: Source, url: str, database_id: int, *, flush_every: int = 1_000_000
) -> list[Entry]:
    """What is captured since the last call, through the log."""

    async def run() -> list[Entry]:
        async with LogWriter.open(url, database_id) as writer, source.capture() as capture:
            return await log(writer, await source.read_all(capture), flush_every)

    return asyncio.run(run())


def record(entry: Entry) -> Any:
    return json.loads(entry.record or b"null")


def whole(note: str | None) -> dict[str, Any]:
    return {"id": 1, "body": BODY, "meta": {"n": int(LONG), "t": BODY}, "note": note}


def test_an_update_of_another_column_has_the_large_values_of_the_row(
    docs: Source, database_url: str, database_id: int
) -> None:
    docs.execute(INSERT)
    logged(docs, database_url, database_id)
    docs.execute("UPDATE docs SET note = 'a'")
    [first] = logged(docs, database_url, database_id)
    docs.execute("UPDATE docs SET note = 'b'", "UPDATE docs SET note = 'c'")
    _, third = logged(docs, database_url, database_id)
    assert record(first) == whole("a")
    assert record(third) == whole("c")
    assert first.unchanged == third.unchanged == ()


@pytest.mark.parametrize(
    ("type_", "long", "short"),
    [
        ("bigint[]", "array_fill(1234567890123, ARRAY[400])", "array_fill(0::bigint, ARRAY[400])"),
        ("float8[]", "array_fill(random(), ARRAY[400])", "array_fill(0::float8, ARRAY[400])"),
        (
            "point[]",
            "array_fill(point(1.5, 2.5), ARRAY[400])",
            "array_fill(point(0,0), ARRAY[150])",
        ),
        (
            "jsonb",
            "to_jsonb(array_fill(123456, ARRAY[400]))",
            "to_jsonb(array_fill(0, ARRAY[400]))",
        ),
        ("tsvector", LEXEMES.format(999), LEXEMES.format(271)),
    ],
)
def test_a_large_value_whose_text_is_short_is_not_taken_for_an_older_one(
    source: Source, database_url: str, database_id: int, type_: str, long: str, short: str
) -> None:
    """Eight bytes of a bigint are two of text: what is not large in the log may be in the table."""
    source.execute(
        f"CREATE TABLE docs (id int PRIMARY KEY, body {type_}, note text)",
        "ALTER TABLE docs ALTER body SET STORAGE EXTERNAL",
    )
    follow_for_log(source, database_url, database_id, "docs")
    source.execute(f"INSERT INTO docs VALUES (1, {long})")
    first = logged(source, database_url, database_id)[-1]
    source.execute(f"UPDATE docs SET body = {short}")
    second = logged(source, database_url, database_id)[-1]
    source.execute("UPDATE docs SET note = 'n'")
    third = logged(source, database_url, database_id)[-1]
    assert record(first)["body"] != record(second)["body"]
    assert record(third) == {**record(second), "note": "n"}
    assert third.unchanged == ()


@pytest.mark.parametrize("flush_every", [1, 2, 1000])
def test_within_a_transaction_the_values_are_those_just_written(
    docs: Source, database_url: str, database_id: int, flush_every: int
) -> None:
    docs.execute(
        f"BEGIN; {INSERT}; UPDATE docs SET note = 'a'; UPDATE docs SET body = 'short';"
        "UPDATE docs SET note = 'b'; COMMIT"
    )
    entries = logged(docs, database_url, database_id, flush_every=flush_every)
    assert [record(e) for e in entries] == [
        whole(None),
        whole("a"),
        whole("a") | {"body": "short"},
        whole("b") | {"body": "short"},
    ]


def test_a_row_that_moved_to_another_key_takes_its_values_along(
    docs: Source, database_url: str, database_id: int
) -> None:
    other = BODY.replace("é", "o")
    docs.execute(INSERT, f"INSERT INTO docs VALUES (2, '{other}')")
    logged(docs, database_url, database_id)
    docs.execute(
        "BEGIN; UPDATE docs SET id = 3 WHERE id = 1; UPDATE docs SET id = 1 WHERE id = 2;"
        "UPDATE docs SET id = 2 WHERE id = 3; COMMIT",
        "UPDATE docs SET note = 'n'",
    )
    entries = [e for e in logged(docs, database_url, database_id) if e.action != "delete"]
    bodies = [(record(e)["id"], record(e)["body"]) for e in entries]
    assert bodies[:3] == [(3, BODY), (1, other), (2, BODY)]
    assert sorted(bodies[3:]) == [(1, other), (2, BODY)]


def test_after_a_delete_and_an_insert_the_values_are_the_new_ones(
    docs: Source, database_url: str, database_id: int
) -> None:
    docs.execute(INSERT)
    logged(docs, database_url, database_id)
    new = BODY.replace("é", "n")
    docs.execute("DELETE FROM docs", f"INSERT INTO docs VALUES (1, '{new}')")
    logged(docs, database_url, database_id)
    docs.execute("UPDATE docs SET note = 'n'")
    [update] = logged(docs, database_url, database_id)
    assert record(update) == {"id": 1, "body": new, "meta": None, "note": "n"}


def test_what_the_log_does_not_have_stays_marked(
    docs: Source, database_url: str, database_id: int
) -> None:
    docs.execute(INSERT)
    docs.changes()  # captured, but by a log that is lost
    docs.execute("UPDATE docs SET note = 'a'")
    [update] = logged(docs, database_url, database_id)
    assert record(update) == {"id": 1, "note": "a"}
    assert update.unchanged == ("body", "meta")


def test_versions_of_before_the_slot_was_replaced_are_not_trusted(
    docs: Source, database_url: str, database_id: int
) -> None:
    docs.execute(INSERT)
    logged(docs, database_url, database_id)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE triggerkit.databases SET epoch_position = next_position")
    docs.execute("UPDATE docs SET note = 'a'")
    [update] = logged(docs, database_url, database_id)
    assert update.unchanged == ("body", "meta")


def test_a_version_that_could_not_be_kept_hides_those_before_it(
    docs: Source, database_url: str, database_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs.execute(INSERT)
    logged(docs, database_url, database_id)
    monkeypatch.setattr(writer_module, "LARGEST_BYTES", 60_000)
    docs.execute(f"UPDATE docs SET body = '{BODY * 4}'")
    [large] = logged(docs, database_url, database_id)
    docs.execute("UPDATE docs SET note = 'a'")
    [update] = logged(docs, database_url, database_id)
    assert (large.record, large.changes) == (None, None)
    assert large.fault is not None
    assert "is larger than the limit of" in large.fault
    assert update.unchanged == ("body", "meta")


@pytest.mark.parametrize("held_bytes", [100, 100_000, 8 * 1024 * 1024])
def test_many_large_values_are_looked_up_in_bounded_memory(
    docs: Source,
    database_url: str,
    database_id: int,
    held_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unchanged_module, "VERSIONS_BYTES", held_bytes)
    docs.execute(
        f"INSERT INTO docs SELECT i, '{BODY}' || i FROM generate_series(1, 40) i",
    )
    logged(docs, database_url, database_id)
    docs.execute("BEGIN; UPDATE docs SET note = 'a'; UPDATE docs SET note = 'b'; COMMIT")
    logged(docs, database_url, database_id)
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT record::json ->> 'id', record::json ->> 'body', record::json ->> 'note', "
            "unchanged FROM triggerkit.events ORDER BY position"
        ).fetchall()
    assert len(rows) == 120
    assert all(body == BODY + id_ and unchanged is None for id_, body, _, unchanged in rows)
    assert [note for _, _, note, _ in rows[40:]] == ["a"] * 40 + ["b"] * 40


def test_a_row_that_cannot_be_decoded_is_in_the_log_with_its_fault(
    docs: Source, database_url: str, database_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'a', NULL, 'n'), (2, 'b', NULL, 'n')")
    parts = docs.parts()
    # As by a server whose text is not in the encoding it was asked for.
    broken = parts[0].changes[0]._replace(record=None, fault="cannot be decoded")
    parts[0].changes[0] = broken

    async def run() -> list[Entry]:
        async with LogWriter.open(database_url, database_id) as writer:
            return await log(writer, parts, 1000)

    faulty, good = asyncio.run(run())
    assert (faulty.key, faulty.record, faulty.fault) == ('["1"]', None, "cannot be decoded")
    assert good.fault is None
    assert entry_module.LARGEST_BYTES == 64 * 1024 * 1024


def test_looking_a_version_up_uses_the_index_of_large_ones(
    docs: Source, database_url: str, database_id: int
) -> None:
    docs.execute(
        f"INSERT INTO docs SELECT i, CASE i % 100 WHEN 0 THEN '{BODY}' END "
        "FROM generate_series(1, 5000) i"
    )
    logged(docs, database_url, database_id)
    wanted: list[list[Any]] = [[0], [3], ["public"], ["docs"], ['["100"]'], [4000], [1], [0]]
    with psycopg.connect(database_url, autocommit=True) as connection:
        for _ in range(2):
            connection.execute("SET enable_sort = off")
            plan = connection.execute(
                f"EXPLAIN {unchanged_module._FIND}", [*wanted, database_id]
            ).fetchall()
            text = "\n".join(line for (line,) in plan)
            assert "hashtext" in text.split("Index Cond")[1].splitlines()[0]
            assert "->  Sort" not in text
            connection.execute("ANALYZE triggerkit.events")

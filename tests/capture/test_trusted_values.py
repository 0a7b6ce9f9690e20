"""A value that an update leaves out is the row's own present one, or it is left out and named."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest

from tests.capture.rig.log import Log
from tests.capture.rig.project import project
from tests.capture.rig.source import Source
from tests.integration.pipeline import declare, streaming
from tests.receiver import Receiver
from triggerkit.consumers.definition import rows
from triggerkit.replication.slot.replication_slot import PUBLICATION

#: Text that no compression keeps within its row.
OLD, NEW, OTHER = (
    "".join(sha256(f"{name}{number}".encode()).hexdigest() for number in range(150))
    for name in ("old", "new", "other")
)

TABLE = (
    "CREATE TABLE {0} (id int PRIMARY KEY, body text, meta text, note text);"
    "ALTER TABLE {0} ALTER body SET STORAGE EXTERNAL, ALTER meta SET STORAGE EXTERNAL"
)
NOTE = "UPDATE docs SET note = 'n'"
TAKE_OUT = f"ALTER PUBLICATION {PUBLICATION} DROP TABLE docs"
PUT_BACK = f"ALTER PUBLICATION {PUBLICATION} ADD TABLE ONLY docs"
CHANGE = f"UPDATE docs SET body = '{NEW}'"
UPPER = [f"ALTER {name} TYPE text USING upper({name})" for name in ("body", "meta")]
LARGE = (
    "CREATE FUNCTION large() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT "
    "string_agg(md5(random()::text || i), '') FROM generate_series(1, 300) i $$"
)


@pytest.fixture
def log(source: Source, database_url: str, database_id: int) -> Log:
    """A log that has two large values of the one row of `docs`."""
    log = Log(source, database_url, database_id)
    source.execute(LARGE, TABLE.format("docs"))
    log.follow("docs")
    source.execute(f"INSERT INTO docs VALUES (1, '{OLD}', '{OTHER}')")
    log.entries()
    return log


LEFT_OUT = {"id": 1, "note": "n", None: ("body", "meta")}

#: What is done to the table, unseen by the stream, so that its log has old values.
PASTS: dict[str, tuple[str, ...]] = {
    "not published for a while": (TAKE_OUT, CHANGE, PUT_BACK),
    "its updates not published for a while": (
        f"ALTER PUBLICATION {PUBLICATION} SET (publish = 'insert, delete, truncate')",
        CHANGE,
        f"ALTER PUBLICATION {PUBLICATION} SET (publish = 'insert, update, delete, truncate')",
    ),
    "another table of the name": (
        "ALTER TABLE docs RENAME TO past",
        TABLE.format("docs"),
        f"INSERT INTO docs VALUES (1, '{NEW}', '{NEW}')",
        PUT_BACK,
    ),
    "made anew": (
        "DROP TABLE docs",
        TABLE.format("docs"),
        f"INSERT INTO docs VALUES (1, '{NEW}', '{NEW}')",
        PUT_BACK,
    ),
    "rows written anew": (f"ALTER TABLE docs {', '.join(UPPER)}",),
    "rows written anew in a transaction with a change": (
        f"BEGIN; ALTER TABLE docs {', '.join(UPPER)}; UPDATE docs SET note = 'm'; COMMIT",
    ),
    "another column of the name": (
        "ALTER TABLE docs DROP body, DROP meta",
        "ALTER TABLE docs ADD body text DEFAULT large(), ADD meta text DEFAULT large()",
    ),
    "keys moved around": (
        "ALTER TABLE docs DROP CONSTRAINT docs_pkey, ADD other int NOT NULL DEFAULT 1",
        "ALTER TABLE docs ADD PRIMARY KEY (other)",
    ),
}


@pytest.mark.parametrize("past", PASTS)
def test_values_of_before_something_unseen_are_left_out_and_named(log: Log, past: str) -> None:
    log.source.execute(*PASTS[past], NOTE)
    found = log.last()
    assert not {"body", "meta"} & found.keys()
    assert set(found[None]) == {"body", "meta"}


@pytest.mark.parametrize("past", PASTS)
def test_it_makes_no_difference_that_the_stream_reads_all_of_it_later(log: Log, past: str) -> None:
    log.source.execute("UPDATE docs SET note = 'l', body = body || 'l'", *PASTS[past], NOTE)
    found = log.last()
    assert not {"body", "meta"} & found.keys()
    assert set(found[None]) == {"body", "meta"}


@pytest.mark.parametrize("past", PASTS)
def test_values_written_after_it_are_known_again(log: Log, past: str) -> None:
    log.source.execute(*PASTS[past], NOTE)
    log.entries()
    log.source.execute(f"UPDATE docs SET body = '{NEW}', meta = '{OTHER}'", NOTE)
    assert log.last().items() >= {"body": NEW, "meta": OTHER}.items()


def test_columns_that_changed_their_names_do_not_change_their_values(log: Log) -> None:
    swap = "; ".join(
        f"ALTER TABLE docs RENAME {old} TO {new}"
        for old, new in (("body", "c"), ("meta", "body"), ("c", "meta"))
    )
    log.source.execute(swap, NOTE)
    assert log.last() == {**LEFT_OUT, None: ("meta", "body")}
    log.source.execute(swap, NOTE)
    assert log.last() == LEFT_OUT


def test_tables_that_changed_their_names_keep_their_values_apart(log: Log) -> None:
    """The one that has the old name again was not changed while another had it."""
    source = log.source
    source.execute(TABLE.format("next"))
    log.follow("docs", "next")
    source.execute(f"INSERT INTO next VALUES (1, '{NEW}', '{NEW}')")
    log.entries()
    swap = "; ".join(
        f"ALTER TABLE {old} RENAME TO {new}"
        for old, new in (("docs", "x"), ("next", "docs"), ("x", "next"))
    )
    source.execute(swap, NOTE)
    assert log.last() == LEFT_OUT
    source.execute(f"UPDATE docs SET body = '{NEW}', meta = '{NEW}'", swap, NOTE)
    assert log.last() == LEFT_OUT


def test_a_row_that_comes_back_with_its_partition_has_other_values(
    source: Source, database_url: str, database_id: int
) -> None:
    if source.version < 13:
        pytest.skip("partitions come under their table's name from 13 on")
    log = Log(source, database_url, database_id)
    source.execute(
        TABLE.format("docs").replace("note text)", "note text) PARTITION BY RANGE (id)"),
        "CREATE TABLE low PARTITION OF docs FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE high PARTITION OF docs FOR VALUES FROM (10) TO (20)",
    )
    log.follow("docs")
    source.execute(f"INSERT INTO docs VALUES (1, '{OLD}', '{OTHER}')")
    log.entries()
    source.execute(
        "CREATE TABLE higher PARTITION OF docs FOR VALUES FROM (20) TO (30)",
        "INSERT INTO docs VALUES (21)",
        "UPDATE docs SET note = 'm' WHERE id = 1",
    )
    assert log.last() == {"id": 1, "body": OLD, "meta": OTHER, "note": "m"}
    source.execute("ALTER TABLE docs DETACH PARTITION low", CHANGE.replace("docs", "low"))
    # Before 15 the server sends no changes of what it has seen unpublished on the same connection.
    log.entries()
    source.execute(
        "ALTER TABLE docs ATTACH PARTITION low FOR VALUES FROM (0) TO (10)",
        "UPDATE docs SET note = 'n' WHERE id = 1",
    )
    assert log.last() == LEFT_OUT


@pytest.mark.parametrize(
    "harmless",
    [
        "ANALYZE docs",
        "CREATE INDEX ON docs (note)",
        "GRANT SELECT ON docs TO public",
        "BEGIN; TRUNCATE docs; INSERT INTO docs VALUES (1, '{0}', '{1}'); COMMIT",
        "CREATE TABLE others (id int); ALTER PUBLICATION {2} ADD TABLE others",
        "ALTER TABLE docs ALTER note SET NOT NULL; ALTER TABLE docs ALTER note DROP NOT NULL",
    ],
)
def test_what_leaves_the_rows_as_they_are_leaves_them_known(log: Log, harmless: str) -> None:
    log.source.execute("UPDATE docs SET note = 'm'")
    log.entries()
    log.source.execute(harmless.format(OLD, OTHER, PUBLICATION), NOTE)
    assert log.last() == {"id": 1, "body": OLD, "meta": OTHER, "note": "n"}
    log.source.execute(NOTE)
    assert log.last() == {"id": 1, "body": OLD, "meta": OTHER, "note": "n"}


def test_rows_of_before_a_truncate_are_of_the_past(log: Log) -> None:
    log.source.execute("TRUNCATE docs")
    log.entries()
    log.source.execute(f"INSERT INTO docs VALUES (1, '{NEW}')", NOTE)
    assert log.last() == {"id": 1, "body": NEW, "meta": None, "note": "n"}


def test_a_row_that_passes_the_publications_row_filter_only_now_has_no_values_of_another(
    log: Log,
) -> None:
    """It comes as an insert, maybe behind the delete of another row."""
    if log.source.version < 15:
        pytest.skip("publications have row filters from 15 on")
    filtered = f"ALTER PUBLICATION {PUBLICATION} SET TABLE docs WHERE (id > 5)"
    log.source.execute(filtered, f"INSERT INTO docs VALUES (3, '{OLD}', '{OLD}'), (10, '', '')")
    log.entries()
    log.source.execute(f"UPDATE docs SET body = '{NEW}', meta = '{NEW}' WHERE id = 10")
    log.entries()
    log.source.execute(
        "BEGIN; DELETE FROM docs WHERE id = 10; UPDATE docs SET id = 6 WHERE id = 3; COMMIT"
    )
    deleted, let_in = log.entries()
    assert (deleted.action, let_in.action) == ("delete", "insert")
    assert let_in.record == b'{"id":6,"note":null}'
    assert set(let_in.unchanged) == {"body", "meta"}
    log.source.execute(f"{NOTE} WHERE id = 6", "UPDATE docs SET id = 7 WHERE id = 6")
    assert log.last() == {"id": 7, "note": "n", None: ("body", "meta")}


@pytest.mark.parametrize("is_put_back", [False, True])
def test_short_values_that_are_stored_apart_are_left_out_and_named(
    log: Log, is_put_back: bool
) -> None:
    """Short records are not in the index by which an earlier version is found."""
    log.source.execute("ALTER TABLE docs SET (toast_tuple_target = 128)")
    log.source.execute(f"UPDATE docs SET body = '{NEW[:600]}', meta = '{NEW[600:1200]}'")
    log.entries()
    if is_put_back:
        log.source.execute("ALTER TABLE docs RESET (toast_tuple_target)")
    log.source.execute(NOTE, NOTE)
    assert log.last() == LEFT_OUT


SNAPSHOT = (
    "body = (SELECT '{0}:' || string_agg(({2})::text, ',') FROM generate_series(1, {1}) i)"
    "::txid_snapshot"
)

#: Tables with a value that is stored apart though the record is short: its columns beside the key
#: and what is set of them at first, and then.
SHORT: dict[str, tuple[str, str, str]] = {
    "columns that are longer than their text": (
        "body text, " + ", ".join(f"c{n} name" for n in range(36)),
        f"body = '{OLD[:100]}', " + ", ".join(f"c{n} = '{'x' * 60}'" for n in range(36)),
        f"body = '{NEW[:100]}', " + ", ".join(f"c{n} = 'x'" for n in range(36)),
    ),
    "columns and text, both of some length": (
        "body text, other text, " + ", ".join(f"c{n} name" for n in range(8)),
        f"body = '{OLD[:1000]}', other = '{OTHER[:1000]}'",
        f"body = '{NEW[:900]}', other = '{OTHER[:700]}', "
        + ", ".join(f"c{n} = 'x'" for n in range(8)),
    ),
    "a type of short text": (
        "body txid_snapshot",
        SNAPSHOT.format("1:900000000000", 200, "800000000000 + i"),
        SNAPSHOT.format("1:900", 340, "i"),
    ),
}


@pytest.mark.parametrize("table", SHORT)
def test_a_value_stored_apart_is_the_last_one_though_its_record_is_short(
    source: Source, database_url: str, database_id: int, table: str
) -> None:
    columns, first, then = SHORT[table]
    log = Log(source, database_url, database_id)
    source.execute(
        f"CREATE TABLE docs (id int PRIMARY KEY, note text, {columns})",
        "ALTER TABLE docs ALTER body SET STORAGE EXTERNAL",
    )
    log.follow("docs")
    source.execute("INSERT INTO docs VALUES (1)")
    log.entries()
    source.execute(f"UPDATE docs SET {first}")
    log.entries()
    source.execute(f"UPDATE docs SET {then}")
    short = log.last()
    source.execute(NOTE)
    assert log.last() == {**short, "note": "n"}


def test_short_values_that_are_stored_apart_are_known_once_that_is_known(log: Log) -> None:
    log.source.execute("ALTER TABLE docs SET (toast_tuple_target = 128)", NOTE)
    log.entries()
    log.source.execute(f"UPDATE docs SET body = '{NEW[:600]}', meta = '{OLD[:70]}'")
    log.entries()
    log.source.execute("UPDATE docs SET note = 'm'")
    assert log.last() == {"id": 1, "body": NEW[:600], "meta": OLD[:70], "note": "m"}


def test_values_that_a_backfill_read_are_known(
    source: Source, database_url: str, redis_url: str
) -> None:
    settings = project(source, database_url, redis_url)
    source.execute(TABLE.format("docs"))
    source.execute(f"INSERT INTO docs SELECT i, '{OLD}' FROM generate_series(1, 20) i")

    async def scenario() -> None:
        async with Receiver.start() as receiver:
            await declare(settings, receiver, rows("docs"))
            async with streaming(settings, receiver):
                await receiver.until(lambda: len(receiver.messages) == 20)
                source.execute(NOTE)
                await receiver.until(lambda: len(receiver.messages) == 40)
            updates = [m for m in receiver.messages if m["action"] == "update"]
            assert [m["record"]["body"] for m in updates] == [OLD] * 20
            assert not any("unchanged" in m["metadata"] for m in updates)

    asyncio.run(scenario())

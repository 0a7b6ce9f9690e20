"""Databases whose encoding is not UTF-8."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tests.capture.rig.server import Server
from tests.capture.rig.source import Source

ENCODINGS = ["SQL_ASCII", "LATIN1", "WIN1252"]


@pytest.fixture(params=ENCODINGS)
def encoded(request: pytest.FixtureRequest, server: Server) -> Iterator[Source]:
    """A database of this encoding."""
    name = request.param.lower()
    with psycopg.connect(server.url(), autocommit=True) as connection:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} LOCALE 'C'")
        if server.version < 13:
            create = sql.SQL(
                "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE 'C' LC_CTYPE 'C'"
            )
        connection.execute(create.format(sql.Identifier(name), sql.Literal(request.param)))
    source = Source(server, server.url(name))
    yield source
    source.close()
    server.clean()
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))


def test_values_are_read_whatever_the_encoding(encoded: Source) -> None:
    encoded.execute("CREATE TABLE docs (id int PRIMARY KEY, body text)")
    encoded.follow("docs")
    is_ascii = conninfo_to_dict(encoded.url)["dbname"] == "sql_ascii"
    letter = r"E'\xc3\xa9'" if is_ascii else r"E'\xe9'"
    encoded.execute(
        "INSERT INTO docs VALUES (1, 'plain')", f"INSERT INTO docs VALUES (2, {letter})"
    )
    assert [change.record for change in encoded.changes()] == [
        {"id": 1, "body": "plain"},
        {"id": 2, "body": "é"},
    ]


def test_a_value_that_is_not_utf_8_is_the_fault_of_its_row_alone(server: Server) -> None:
    source = _sql_ascii(server)
    try:
        source.execute(
            "CREATE TABLE docs (id int PRIMARY KEY, body text)",
            "CREATE TABLE other (id int PRIMARY KEY)",
        )
        source.follow("docs", "other")
        source.execute(
            r"INSERT INTO docs VALUES (1, E'\xff\xfe')",
            "INSERT INTO other VALUES (7)",
            "INSERT INTO docs VALUES (2, 'fine')",
            "UPDATE docs SET body = 'mended' WHERE id = 1",
        )
        faulty, other, fine, mended = source.changes()
        assert (faulty.key, faulty.record) == (("1",), None)
        assert "column 'body' cannot be decoded" in (faulty.fault or "")
        assert [change.fault for change in (other, fine, mended)] == [None] * 3
        assert mended.record == {"id": 1, "body": "mended"}
    finally:
        source.close()
        server.clean()
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("DROP DATABASE bytes")


def _sql_ascii(server: Server) -> Source:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(
            "CREATE DATABASE bytes TEMPLATE template0 ENCODING 'SQL_ASCII' "
            "LC_COLLATE 'C' LC_CTYPE 'C'"
        )
    return Source(server, server.url("bytes"))

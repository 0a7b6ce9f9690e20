"""Rows of whatever Postgres stores, in tables that are altered meanwhile, and their truth."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

TABLES = 20

#: Rows of one table, so that most changes meet one that is there.
KEYS = 25

#: The types of keys, and values of them.
KEY_TYPES = {
    "bigint": "{n}",
    "text": "repeat('k', {n} * 40) || '|\"\\ ü' || {n}",
    "uuid": "md5('{n}')::uuid",
    "numeric": "{n}.50",
    "bytea": "decode(md5('{n}'), 'hex')",
    "date": "date '2024-02-29' + {n}",
    "inet": "inet '10.0.0.0' + {n}",
}

#: Values that are legal here and not everywhere else.
VALUES: dict[str, Sequence[str]] = {
    "json": [
        "'\"\\ud800\"'",
        "'1e400'",
        "(repeat('[', 1000) || repeat(']', 1000))::json",
        '\'{"a": 1, "a": 2}\'',
        "('1' || repeat('0', 5000))::json",
    ],
    "jsonb": [
        "(repeat('[', 500) || repeat(']', 500))::jsonb",
        "('1' || repeat('0', 5000))::jsonb",
        "'null'",
        "jsonb_build_object(repeat('x', 300), repeat('y', 100000))",
    ],
    "text": ["''", "E'\\b\\t\\n\\\\'", "repeat('x', 3000000)", "E'\\u2028 \\U0001F642'", "'\\N'"],
    "bytea": ["''", "decode(repeat('00ff5c', 400000), 'hex')"],
    "numeric": ["'NaN'", "'-0.000'", "1e300", "1e-300", "repeat('9', 5000)::numeric"],
    "float8": ["'NaN'", "'-Infinity'", "'1e-320'", "'-0'"],
    "date": ["'infinity'", "'0044-03-15 BC'", "'5874897-12-31'"],
    "timestamptz": ["'-infinity'", "'294276-12-31 23:59:59Z'", "'4713-01-01 00:00Z BC'"],
    "timetz": ["'24:00:00+15:59'", "'00:00-03'"],
    "interval": ["'-178000000 years'", "'1 mon -1 day 00:00:01.5'"],
    "int[]": ["'[0:1]={7,8}'", "'{{1,NULL},{3,4}}'", "'{}'"],
    "text[]": ["ARRAY[NULL, 'NULL', '', '\"{,}']"],
    "int4range": ["'empty'", "'(,)'", "'[1,5)'"],
    "money": ["'-92233720368547758.08'"],
    "inet": ["'::ffff:1.2.3.0/120'", "'10.1.2.3/8'"],
    "bit varying": ["B''", "B'10101'"],
    "xml": ["'<a>&lt;</a>'"],
    "tsvector": ["'a:1A ''b c'':2'"],
    "point": ["'(NaN,Infinity)'"],
    "char(10)": ["'a'", "''"],
    "pg_lsn": ["'FFFFFFFF/FFFFFFFF'"],
    "bool": ["true"],
}

#: How many of the large values that are chosen are written: from then on, each change of their row
#: carries them to every consumer.
LARGE_SHARE = 0.05

#: Versions come from one sequence, so that none is used twice.
TRUTH = """
CREATE SCHEMA truth;
CREATE SEQUENCE truth.versions;
CREATE TABLE truth.changes (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL, key text NOT NULL, op text NOT NULL, version bigint NOT NULL);
CREATE FUNCTION truth.note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    r record := coalesce(NEW, OLD);
    key text := CASE WHEN TG_NARGS = 0 THEN format('%s', r.k) ELSE format('%s/%s', r.k, r.part) END;
BEGIN
    INSERT INTO truth.changes (name, key, op, version)
    VALUES (TG_TABLE_NAME, key, lower(TG_OP), r.version);
    RETURN NULL;
END $$
"""

_TABLE = """
CREATE TABLE {table} (k {type}, part int NOT NULL, version bigint NOT NULL, kind text NOT NULL,
    PRIMARY KEY ({key}));
ALTER TABLE {table} REPLICA IDENTITY FULL;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION truth.note({noted})
"""

_COLUMNS = """
SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attname LIKE 'c%%'
"""

#: What may go wrong where others alter the table at this moment.
_REFUSED = (
    psycopg.errors.ProgrammingError,
    psycopg.errors.IntegrityError,
    psycopg.errors.OperationalError,
    psycopg.errors.DataError,
    psycopg.errors.InternalError,
    psycopg.errors.NotSupportedError,
)


class Change(NamedTuple):
    """A committed change of the truth."""

    name: str
    key: str
    op: str
    version: int


def table_names() -> list[str]:
    """The tables, of which the second half is altered in its replica identity, too."""
    return [f"any_{number}" for number in range(TABLES)]


def create(connection: psycopg.Connection[Any]) -> None:
    """Make the tables, empty, and what notes their changes."""
    connection.execute(TRUTH)
    types = [*KEY_TYPES]
    for number, name in enumerate(table_names()):
        noted = "'with its part'" if is_composite(number) else ""
        query = _TABLE.format(
            table=name, type=types[number % len(types)], key=_key_of(number), noted=noted
        )
        connection.execute(query)


def is_composite(number: int) -> bool:
    """Whether the key of this table has two columns."""
    return number % 4 == 3


def _key_of(number: int) -> str:
    return "k, part" if is_composite(number) else "k"


def committed(connection: psycopg.Connection[Any]) -> list[Change]:
    """All changes that were committed, of each row in their order."""
    found = connection.execute("SELECT name, key, op, version FROM truth.changes ORDER BY seq")
    return [Change(*row) for row in found]


def fill(url: str, seed: int) -> None:
    """Write rows of every table, and alter some, before anybody follows them."""
    tenants, choose = Tenants(url, seed, pause_s=0.0), random.Random(seed)
    with psycopg.connect(url, autocommit=True) as connection:
        for step in range(TABLES * 8):
            with suppress(*_REFUSED):
                tenants.write(connection, choose)
                if step % 10 == 0:
                    tenants.alter(connection, choose)


def _value(type_: str, choose: random.Random) -> str:
    value = choose.choice(VALUES.get(type_, ["NULL"]))
    is_large = "00000)" in value
    return value if not is_large or choose.random() < LARGE_SHARE else "NULL"


class Tenants:
    """Several who write and one who alters, each by its own seeded choices, until stopped."""

    def __init__(self, url: str, seed: int, *, writers: int = 3, pause_s: float = 0.05) -> None:
        print(f"tenants' seed {seed}")
        self._url = url
        self._pause_s = pause_s
        self._stop = threading.Event()
        works = [self.write] * writers + [self.alter]
        self._threads = [
            threading.Thread(target=self._keep, args=[work, random.Random(f"{seed}/{n}")])
            for n, work in enumerate(works)
        ]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _keep(self, work: Any, choose: random.Random) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute("SET lock_timeout = '1s'")
            while not self._stop.is_set():
                with suppress(*_REFUSED):
                    work(connection, choose)

    def write(self, connection: psycopg.Connection[Any], choose: random.Random) -> None:
        """Change a row of a table."""
        number = choose.randrange(TABLES)
        name = table_names()[number]
        key = [*KEY_TYPES.values()][number % len(KEY_TYPES)].format(n=choose.randrange(KEYS))
        part = choose.randrange(2)
        row = f"k = {key} AND part = {part}" if is_composite(number) else f"k = {key}"
        columns = connection.execute(_COLUMNS, [name]).fetchall()
        chosen = choose.sample(columns, min(len(columns), 3))
        values = {column: _value(type_, choose) for column, type_ in chosen}
        kind = choose.choices(("upsert", "delete", "unrelated"), (80, 12, 8))[0]
        if kind == "delete":
            query = f"DELETE FROM {name} WHERE {row}"
        elif kind == "unrelated":
            query = f"UPDATE {name} SET version = nextval('truth.versions') WHERE {row}"
        else:
            names = ", ".join(["k", "part", "version", "kind", *values])
            version = "nextval('truth.versions')"
            given = ", ".join([key, str(part), version, f"'{name[-1]}'", *values.values()])
            sets = ", ".join(f"{n} = excluded.{n}" for n in ("version", *values))
            query = (
                f"INSERT INTO {name} ({names}) VALUES ({given}) "
                f"ON CONFLICT ({_key_of(number)}) DO UPDATE SET {sets}"
            )
        connection.execute(query)
        self._stop.wait(self._pause_s * choose.random() * 2)

    def alter(self, connection: psycopg.Connection[Any], choose: random.Random) -> None:
        """Change a table."""
        number = choose.randrange(TABLES)
        table = sql.Identifier(table_names()[number])
        columns = connection.execute(_COLUMNS, [table_names()[number]]).fetchall()
        kinds = ["add", "add", "identity"]
        if len(columns) > 2:
            kinds += ["drop", "rename", "retype"]
        kind = choose.choice(kinds)
        new = sql.Identifier(f"c{choose.randrange(10**6)}")
        column = sql.Identifier(choose.choice(columns)[0]) if columns else new
        if kind == "add":
            type_ = sql.SQL(choose.choice([*VALUES]))
            query = sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(table, new, type_)
        elif kind == "drop":
            query = sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(table, column)
        elif kind == "rename":
            query = sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(table, column, new)
        elif kind == "retype":
            query = sql.SQL("ALTER TABLE {0} ALTER COLUMN {1} TYPE text USING {1}::text").format(
                table, column
            )
        else:
            full = number < TABLES // 2 or choose.random() < 0.5
            identity = sql.SQL("FULL" if full else "DEFAULT")
            query = sql.SQL("ALTER TABLE {} REPLICA IDENTITY {}").format(table, identity)
        connection.execute(query)
        self._stop.wait(10 * self._pause_s)

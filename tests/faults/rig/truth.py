"""The truth of a fault run: a table whose every change is noted in the change's transaction."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
from collections.abc import Mapping
from struct import unpack_from
from typing import Any

import psycopg

from tests.faults.rig.history import Committed

#: The table whose changes are captured, and what notes them. Versions come from one sequence, so
#: that none is used twice; `large` is stored apart (TOAST), so that an update may leave it out.
SCHEMA = """
CREATE TABLE items (id bigint PRIMARY KEY, version bigint NOT NULL, body text, large text);
ALTER TABLE items REPLICA IDENTITY FULL;
ALTER TABLE items ALTER COLUMN large SET STORAGE EXTERNAL;
CREATE SCHEMA truth;
CREATE SEQUENCE truth.versions;
CREATE TABLE truth.changes (op_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key bigint NOT NULL, version bigint NOT NULL, op text NOT NULL, xid bigint NOT NULL,
    hash text NOT NULL, required boolean NOT NULL);
CREATE TABLE truth.phase (required boolean NOT NULL);
INSERT INTO truth.phase VALUES (false);
CREATE FUNCTION truth.hash(i items) RETURNS text LANGUAGE sql AS $$
    SELECT md5(concat_ws('|', i.id, i.version, coalesce(i.body, '~'), coalesce(i.large, '~'))) $$;
CREATE FUNCTION truth.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND OLD.id <> NEW.id) THEN
        INSERT INTO truth.changes (key, version, op, xid, hash, required)
        SELECT OLD.id, OLD.version, 'delete', pg_current_xact_id()::text::bigint,
            truth.hash(OLD), required FROM truth.phase;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO truth.changes (key, version, op, xid, hash, required)
        SELECT NEW.id, NEW.version,
            CASE WHEN TG_OP = 'UPDATE' AND OLD.id = NEW.id THEN 'update' ELSE 'insert' END,
            pg_current_xact_id()::text::bigint, truth.hash(NEW), required FROM truth.phase;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON items
    FOR EACH ROW EXECUTE FUNCTION truth.note();
CREATE SCHEMA effects;
CREATE TABLE effects.items (id text PRIMARY KEY, lsn bigint NOT NULL, idx int NOT NULL,
    hash text NOT NULL, deleted boolean NOT NULL);
CREATE TABLE effects.begun (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text NOT NULL, lsn bigint NOT NULL, idx int NOT NULL, version bigint NOT NULL)
"""

#: A value of this length is stored apart.
LARGE_CHARS = 3000

#: The slot that tells the commit LSNs independently of what is tested.
SLOT = "truth"

_INSERT = """
INSERT INTO items VALUES (%s, nextval('truth.versions'), %s, %s) ON CONFLICT DO NOTHING
"""
_UPDATE = "UPDATE items SET version = nextval('truth.versions'), body = %s WHERE id = %s"
_LARGE = "UPDATE items SET version = nextval('truth.versions'), large = %s WHERE id = %s"
_KEY = """
UPDATE items SET version = nextval('truth.versions'), id = %s
WHERE id = %s AND NOT EXISTS (SELECT FROM items WHERE id = %s)
"""

Connection = psycopg.Connection[tuple[Any, ...]]


def hash_of(record: Mapping[str, Any]) -> str:
    """The hash of a record, equal to that of the trigger; `~` stands for NULL, `!` for missing."""
    values = [record.get(name, "!") for name in ("id", "version", "body", "large")]
    text = "|".join("~" if value is None else str(value) for value in values)
    return hashlib.md5(text.encode()).hexdigest()


def create(connection: Connection, rows: int) -> None:
    """Make the tables, and the rows that are there before any consumer is."""
    connection.execute(SCHEMA)
    connection.execute(
        "INSERT INTO items SELECT i, nextval('truth.versions'), 'row ' || i, "
        "CASE WHEN i %% 10 = 0 THEN repeat(md5(i::text), %s / 32) END "
        "FROM generate_series(1, %s) i",
        [LARGE_CHARS, rows],
    )


def require(connection: Connection) -> None:
    """From here on every change must arrive: call it when the consumer exists."""
    connection.execute("UPDATE truth.phase SET required = true")
    connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [SLOT])


def committed(connection: Connection) -> list[Committed]:
    """All that was committed, in order."""
    found = connection.execute(
        "SELECT op_id, key::text, version, op, xid, hash, required FROM truth.changes "
        "ORDER BY op_id"
    )
    return [Committed(*row) for row in found]


def commit_lsns(connection: Connection, publication: str) -> dict[int, int]:
    """The commit LSN of every captured transaction by its id, as our own slot tells."""
    found = connection.execute(
        "SELECT xid::text::bigint, data FROM pg_logical_slot_peek_binary_changes("
        "%s, NULL, NULL, 'proto_version', '1', 'publication_names', %s) "
        "WHERE get_byte(data, 0) = ascii('B')",
        [SLOT, publication],
        binary=True,
    )
    # A Begin message: its kind, then the LSN of its commit (PostgreSQL documentation,
    # "Logical Replication Message Formats").
    return {xid: unpack_from("!Q", data, 1)[0] for xid, data in found}


class Workload:
    """Writers that change random rows until told to stop, each by its own seeded choices.

    They go on after a lost connection; what was committed is in the truth, known to them or not.
    """

    def __init__(
        self, url: str, seed: int, *, writers: int = 3, per_second: float = 300, keys: int = 400
    ) -> None:
        print(f"workload seed {seed}")
        self._url = url
        self._keys = keys
        self._pause_s = writers / per_second
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._write, args=[random.Random(f"{seed}/{n}")])
            for n in range(writers)
        ]
        self.changes = 0

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def until(self, changes: int, timeout_s: float) -> None:
        """Wait until at least so many rows were changed."""
        with self._changed:
            done = self._changed.wait_for(lambda: self.changes >= changes, timeout_s)
        assert done, f"{self.changes} of {changes} changes within {timeout_s:g} s"

    def stop(self) -> None:
        """End, with what was begun."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, choose: random.Random) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._url, autocommit=True, connect_timeout=5) as connection:
                    while not self._stop.is_set():
                        self._transaction(connection, choose)
            except psycopg.OperationalError:
                self._stop.wait(0.1)

    def _transaction(self, connection: Connection, choose: random.Random) -> None:
        size = choose.choices((1, choose.randint(2, 6), choose.randint(20, 40)), (70, 26, 4))[0]
        began = time.monotonic()
        changed = 0
        # Two writers that meet in a deadlock, or with one new key, give one of them up.
        refused = (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation)
        with contextlib.suppress(*refused):
            with connection.transaction():
                for _ in range(size):
                    changed += self._change(connection, choose)
            with self._changed:
                self.changes += changed
                self._changed.notify_all()
        self._stop.wait(max(0.0, self._pause_s * size - (time.monotonic() - began)))

    def _key(self, connection: Connection, choose: random.Random) -> int:
        """The key of the row to change."""
        return choose.randint(1, self._keys)

    def _change(self, connection: Connection, choose: random.Random) -> int:
        key, other = self._key(connection, choose), choose.randint(1, self._keys)
        text = f"body {choose.getrandbits(64):x}" if choose.random() < 0.9 else None
        large = f"{choose.getrandbits(64):016x}" * (LARGE_CHARS // 16)
        queries: dict[str, tuple[str, list[Any]]] = {
            "insert": (_INSERT, [key, text, large if choose.random() < 0.2 else None]),
            "update": (_UPDATE, [text, key]),
            "large": (_LARGE, [large, key]),
            "key": (_KEY, [other, key, other]),
            "delete": ("DELETE FROM items WHERE id = %s", [key]),
        }
        kind = choose.choices(list(queries), (20, 50, 8, 8, 14))[0]
        return connection.execute(*queries[kind]).rowcount

"""Records what a real Postgres sends: the frames of `pgoutput` by the SQL that caused them, and
values of many types as it prints them.

    python -m tests.unit.recordings.record "host=/tmp/pg user=postgres dbname=postgres" \
        > tests/unit/recordings/postgres18.json

The server needs `wal_level=logical`, and an empty database of its own; the slot is dropped at the
end, the tables stay. Each step runs in transactions of its own and is followed by a transactional
message that marks its end (and is left out). Frames are whole, in hexadecimal.
"""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
from psycopg import pq

from tests.unit.recordings.statements import SETUP, STEPS, VALUES

SLOT = "triggerkit_recording"
END_OF_STEP = b"end of step"
SESSION = "-c DateStyle=ISO -c TimeZone=UTC -c extra_float_digits=3 -c client_encoding=UTF8"


def main(dsn: str) -> None:
    """Record all steps and values, and print them as JSON."""
    with psycopg.connect(dsn, autocommit=True, options=SESSION) as sql:
        for statement in SETUP.split(";\n"):
            sql.execute(statement.encode())
        walsender = psycopg.connect(f"{dsn} replication=database", autocommit=True, options=SESSION)
        frames = stream(walsender)
        recording = {
            "server": sql.info.parameter_status("server_version"),
            "steps": [record_step(sql, frames, name, texts) for name, texts in STEPS.items()],
            "values": [record_value(sql, line) for line in VALUES.strip().splitlines()],
            "keepalives": [next(frame for frame in frames if frame[:1] == b"k").hex()],
            "array_types": array_types(sql),
        }
        walsender.close()
        while slot_is_active(sql):
            time.sleep(0.05)
        sql.execute("SELECT pg_drop_replication_slot(%s)", [SLOT])
    sys.stdout.write(one_line_an_item(recording))


def stream(walsender: psycopg.Connection) -> Iterator[bytes]:
    """The frames of the slot, as they arrive."""
    pgconn = walsender.pgconn
    pgconn.send_query(
        f"START_REPLICATION SLOT {SLOT} LOGICAL 0/0 "
        f"(proto_version '1', publication_names '{SLOT}', messages 'true')".encode()
    )
    while pgconn.is_busy():
        pgconn.consume_input()
    result = pgconn.get_result()
    if result is None or result.status != pq.ExecStatus.COPY_BOTH:
        raise SystemExit(f"no stream: {pgconn.get_error_message()}")
    while True:
        length, frame = pgconn.get_copy_data(1)
        if length > 0:
            yield bytes(frame)
        else:
            select.select([pgconn.socket], [], [])
            pgconn.consume_input()


def record_step(
    sql: psycopg.Connection, frames: Iterator[bytes], name: str, texts: list[LiteralString]
) -> dict[str, object]:
    """Run one step; its frames are those before the message that marks its end."""
    for text in texts:
        if text.startswith("COPY"):
            with sql.cursor() as cursor, cursor.copy(text) as copy:
                copy.write("20\tcopied\n21\t\\N\n22\tthird\n")
        else:
            sql.execute(text)
    sql.execute("SELECT pg_logical_emit_message(true, %s, %s)", [END_OF_STEP.decode(), name])
    step: list[bytes] = []
    for frame in frames:
        if frame[25:26] == b"M" and END_OF_STEP in frame:
            break
        if frame[:1] == b"w":
            step.append(frame)
    # Before the mark is its transaction's Begin, after it the Commit.
    begin = max(at for at, frame in enumerate(step) if frame[25:26] == b"B")
    del step[begin]
    while next(frames)[25:26] != b"C":
        pass
    return {"name": name, "sql": texts, "frames": [frame.hex() for frame in step]}


def record_value(sql: psycopg.Connection, expression: LiteralString) -> dict[str, object]:
    """What the type's output function prints, which a cast to text does not for all types."""
    result = sql.pgconn.exec_(f"SELECT {expression}, to_json({expression})".encode())
    printed, as_json = result.get_value(0, 0), result.get_value(0, 1)
    if printed is None or as_json is None:
        raise SystemExit(f"{expression}: {result.error_message.decode()}")
    return {
        "sql": expression,
        "type_oid": result.ftype(0),
        "printed": printed.decode(),
        "json": as_json.decode(),
    }


def array_types(sql: psycopg.Connection) -> list[tuple[int, int, str]]:
    """The built-in arrays' OIDs, and the OIDs and delimiters of their elements."""
    query = """
        SELECT element.typarray::int, element.oid::int, element.typdelim::text
        FROM pg_type element
        WHERE element.typarray BETWEEN 1 AND 9999 AND element.typtype IN ('b', 'r', 'm')
        ORDER BY 1
    """
    return sql.execute(query).fetchall()


def one_line_an_item(recording: dict[str, Any]) -> str:
    """JSON that a diff can show."""
    parts = []
    for name, items in recording.items():
        if isinstance(items, list):
            lines = ",\n  ".join(json.dumps(item, ensure_ascii=False) for item in items)
            parts.append(f'"{name}": [\n  {lines}\n]')
        else:
            parts.append(f'"{name}": {json.dumps(items)}')
    return "{" + ",\n".join(parts) + "}\n"


def slot_is_active(sql: psycopg.Connection) -> bool:
    """Whether the walsender still holds the slot."""
    query = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"
    return sql.execute(query, [SLOT]).fetchone() == (True,)


if __name__ == "__main__":
    main(sys.argv[1])

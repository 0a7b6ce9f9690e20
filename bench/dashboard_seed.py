"""The state of an installation that has been at work for a week, as T8 looks at it: made by SQL,
not by working for a week."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Scale
from bench.project import Connection, one
from triggerkit.log import tables, writer
from triggerkit.log.entry import partition_of

#: Tables that are captured, each with a task on its changes.
TABLES = 20

#: Rows that the changes of a table are of.
ROWS_EACH = 5_000

#: Seconds in which all of it happened.
SPAN_S = 7 * 86_400

SCHEMA = "".join(
    f"CREATE TABLE IF NOT EXISTS things_{n} (id bigint PRIMARY KEY, name text, note text);\n"
    for n in range(TABLES)
)

_TASKS = """\
from typing import Any

from triggerkit import Change, changes, task

TABLES, TASKS, QUEUES = {tables}, {tasks}, {queues}

for n in range(TABLES):
    @task(name=f"task_{{n:03}}", queue=f"queue_{{n % QUEUES:03}}",
          on=changes(f"public.things_{{n}}"))
    def follow(change: Change[dict[str, Any]]) -> None: ...

for n in range(TABLES, TASKS):
    @task(name=f"task_{{n:03}}", queue=f"queue_{{n % QUEUES:03}}")
    def work(payload: dict[str, Any]) -> None: ...
"""

#: As the log's writer makes them.
_ENTRIES = f"""
INSERT INTO triggerkit.events (position, database_id, partition, schema_name, table_name, key,
    action, commit_lsn, commit_idx, commit_at, xid, record, captured_at)
SELECT n, %(database)s, p.partition, 'public', t, '["' || k || '"]',
    CASE WHEN n %% 4 = 0 THEN 'insert' ELSE 'update' END, n, 1, at, n,
    '{{"id":' || k || ',"name":"thing ' || md5(n::text) || '","note":"'
    || repeat(md5((-n)::text), 3) || '"}}', at
FROM generate_series(%(first)s::bigint, %(last)s::bigint) n, LATERAL (SELECT
    'things_' || n %% {TABLES} AS t, 1 + n / {TABLES} %% {ROWS_EACH} AS k,
    now() - interval '1 s' * {SPAN_S} * (1 - n / %(size)s::float) AS at) s
JOIN places p ON p.table_name = t AND p.key = k
"""

#: The partition of each row, which the log's writer knows.
_PLACES = "CREATE TEMP TABLE places (table_name text, key bigint, partition smallint)"

#: 48 bits of milliseconds and 80 that differ, 5 to a character, as runs are named.
_RUN_ID = (
    "'run_' || "
    + " || ".join(
        f"substr('0123456789abcdefghjkmnpqrstvwxyz', (ms >> {45 - 5 * place} & 31)::int + 1, 1)"
        for place in range(10)
    )
    + " || left(md5(n::text), 16)"
)

_TRACEBACK = """Traceback (most recent call last):
""" + "".join(
    f'  File "/srv/app/.venv/lib/python3.11/site-packages/api/part_{n}.py", line {n}1, in call\\n'
    "    return self._send(request, timeout=timeout, retries=retries)\n"
    for n in range(12)
)

#: Of a thousand runs 965 completed. Two of three were made by a change of a row. The unfinished
#: ones are the newest.
_RUNS = f"""
INSERT INTO triggerkit.runs (id, task, queue, status, attempt, max_attempts, payload, output, error,
    idempotency_key, concurrency_key, item_key, tags, source, created_at, rank, scheduled_at,
    started_at, finished_at, worker, version)
SELECT {_RUN_ID}, 'task_' || lpad(t::text, 3, '0'),
    'queue_' || lpad((t %% %(queues)s)::text, 3, '0'),
    status, CASE WHEN status IN ('queued', 'delayed') THEN 0
        WHEN status IN ('completed', 'executing') THEN 1 ELSE 3 END, 5,
    '{{"record":{{"id":' || k || ',"name":"thing ' || md5(n::text) || '","note":"'
    || repeat(md5((-n)::text), 3) || '"}},"changes":null,"action":"update"}}',
    CASE WHEN status = 'completed' THEN '{{"kept":' || n || '}}' END,
    CASE WHEN status IN ('failed', 'crashed', 'timed_out', 'retrying') THEN jsonb_build_object(
        'type', (ARRAY['TimeoutError', 'ValueError', 'HTTPStatusError'])[n %% 3 + 1],
        'message', 'could not do ' || n, 'traceback', %(traceback)s
            || '  File "/srv/app/tasks/part_' || n %% 40 || '.py", line 17, in work' || E'\\n'
            || 'TimeoutError: could not do ' || n || E'\\n') END,
    md5(n::text), CASE WHEN from_row THEN key END, CASE WHEN from_row THEN key END,
    CASE WHEN n %% 10 = 0 THEN ARRAY['tag_' || n %% 70, 'nightly'] ELSE '{{}}' END,
    CASE WHEN from_row THEN jsonb_build_object('consumer', 'task_' || lpad(t::text, 3, '0'),
        'table', 'public.things_' || t, 'key', key, 'position', n, 'commit_lsn', n) END,
    at, ms * 1000, CASE WHEN status IN ('delayed', 'retrying') THEN now() + interval '1 h' END,
    CASE WHEN status NOT IN ('queued', 'delayed', 'expired') THEN at + interval '20 ms' END,
    CASE WHEN status NOT IN ('queued', 'delayed', 'retrying', 'executing')
        THEN at + interval '20 ms' + interval '1 ms' * (n %% 400) END,
    CASE WHEN status NOT IN ('queued', 'delayed') THEN 'worker-1' END, 'a1b2c3d'
FROM generate_series(%(first)s::bigint, %(last)s::bigint) n,
LATERAL (SELECT n %% 3 < 2 AS from_row,
    now() - interval '1 s' * {SPAN_S} * (1 - n / %(size)s::float) AS at) a,
LATERAL (SELECT CASE WHEN from_row THEN n %% {TABLES} ELSE n %% %(tasks)s END AS t,
    1 + n / {TABLES} %% {ROWS_EACH} AS k, (extract(epoch FROM at) * 1000)::bigint AS ms,
    CASE WHEN n > %(size)s * 0.997 THEN
        (ARRAY['queued', 'queued', 'delayed', 'retrying', 'executing'])[n %% 5 + 1]
    ELSE CASE n %% 200 WHEN 0 THEN 'crashed' WHEN 1 THEN 'canceled' WHEN 2 THEN 'expired'
        WHEN 3 THEN 'timed_out' WHEN 4 THEN 'failed' WHEN 5 THEN 'failed' WHEN 6 THEN 'failed'
        ELSE 'completed' END END AS status) b,
LATERAL (SELECT 'public.things_' || t || ':["' || k || '"]' AS key) c
"""

_ATTEMPTS = """
INSERT INTO triggerkit.attempts (run_id, attempt, status, started_at, finished_at, worker, error)
SELECT id, a, 'failed', started_at, started_at + interval '10 ms', worker, error
FROM triggerkit.runs, generate_series(1, 3) a WHERE error IS NOT NULL
"""

#: What a run said is kept for a while: that of the newest third.
_SPANS = """
INSERT INTO triggerkit.spans (run_id, attempt, kind, span_id, name, level, started_at, ended_at)
SELECT id, 1, kind, md5(id || kind), CASE kind WHEN 'log' THEN 'it is under way' ELSE 'call' END,
    CASE kind WHEN 'log' THEN 'info' END, started_at, CASE kind WHEN 'span' THEN finished_at END
FROM triggerkit.runs, unnest(ARRAY['span', 'log']) kind
WHERE started_at > now() - interval '1 s' * %s AND finished_at IS NOT NULL
"""

_PARKED = """
INSERT INTO triggerkit.parked (consumer_id, partition, position, key, body, reason, state, attempts,
    failures, status, schema_name, table_name, row_key, idempotency_key)
SELECT c.id, e.partition, e.position, e.schema_name || '.' || e.table_name || ':' || e.key,
    '{"record":' || e.record || '}', 'the endpoint answered 500',
    (ARRAY['failing', 'waiting', 'blocked', 'dead'])[e.position %% 4 + 1], 5, 5, 500, e.schema_name,
    e.table_name, e.key, md5(e.position::text)
FROM (SELECT * FROM triggerkit.events ORDER BY position DESC LIMIT %s) e
JOIN triggerkit.consumers c
    ON c.definition -> 'tables' ? (e.schema_name || '.' || e.table_name)
"""

_DELIVERIES = """
INSERT INTO triggerkit.deliveries (consumer_id, partition, first_position, last_position, batch_id,
    attempt, messages, sent_at, answered_at, status, error)
SELECT c.id, n %% 8, n, n, md5(n::text), 1, 1, now() - interval '1 s' * (%(count)s - n),
    now() - interval '1 s' * (%(count)s - n), CASE WHEN n %% 50 = 0 THEN 500 ELSE 200 END,
    CASE WHEN n %% 50 = 0 THEN 'the endpoint answered 500' END
FROM generate_series(1, %(count)s) n
JOIN (SELECT id, row_number() OVER (ORDER BY id) AS place, count(*) OVER () AS all_of_them
      FROM triggerkit.consumers) c ON c.place - 1 = n %% c.all_of_them
"""

#: What the keeper and the stream would have written, once a minute.
_ROLLUPS = """
INSERT INTO triggerkit.run_rollups (step_s, task, at, accepted, completed, failed, open, latencies,
    waits)
SELECT %(step_s)s, coalesce(task, ''), at, count(*), count(*) FILTER (WHERE status = 'completed'),
    count(*) FILTER (WHERE status IN ('failed', 'crashed', 'timed_out')),
    count(*) FILTER (WHERE finished_at IS NULL),
    jsonb_build_object('20', count(*), '23', count(*) / 2, '26', count(*) / 4),
    jsonb_build_object('13', count(*), '15', count(*) / 8)
FROM (SELECT *, to_timestamp(floor(extract(epoch FROM created_at) / %(step_s)s) * %(step_s)s) AS at
      FROM triggerkit.runs WHERE created_at > now() - interval '1 s' * %(kept_s)s) r
GROUP BY GROUPING SETS ((at, task), (at))
"""

_MINUTES = (
    """
INSERT INTO triggerkit.lag_minutes (consumer_id, at, messages, seconds)
SELECT id, date_trunc('minute', now()) - interval '1 min' * n, n %% 50, n %% 7
FROM triggerkit.consumers, generate_series(1, %(minutes)s) n
""",
    """
INSERT INTO triggerkit.log_minutes (database_id, at, position)
SELECT id, date_trunc('minute', now()) - interval '1 min' * n,
    greatest(0, next_position - 1 - n * 100)
FROM triggerkit.databases, generate_series(1, %(minutes)s) n
""",
)

_QUEUES = """
INSERT INTO triggerkit.queues (name, concurrency)
SELECT 'queue_' || lpad(n::text, 3, '0'), 10 FROM generate_series(0, %s - 1, 4) n
"""

_WORKER = """
INSERT INTO triggerkit.workers (id, hostname, pid, parent_pid, tasks, queues, version, slots)
SELECT 'worker-1', 'app-1', 1, 1, array_agg(DISTINCT task), array_agg(DISTINCT queue), 'a1b2c3d', 16
FROM (SELECT DISTINCT task, queue FROM triggerkit.runs) r
"""

_AUDIT = """
INSERT INTO triggerkit.audit (at, actor, action, subject)
SELECT now() - interval '1 s' * (%(count)s - n), 'dashboard', 'replay run', 'run ' || md5(n::text)
FROM generate_series(1, %(count)s) n
"""

_INDEXES = """
SELECT indexname, indexdef FROM pg_indexes
WHERE schemaname = 'triggerkit' AND tablename = %s AND indexname <> tablename || '_pkey'
"""

#: Rows of one statement, so that none takes long.
_CHUNK = 250_000


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much there is of what."""

    runs: int
    entries: int
    parked: int
    queues: int
    tasks: int

    @classmethod
    def of(cls, scale: Scale) -> Sizes:
        """Return the sizes of a scale."""
        return cls(
            runs=scale.pick(50_000, 1_000_000),
            entries=scale.pick(50_000, 1_000_000),
            parked=scale.pick(1_000, 5_000),
            queues=scale.pick(40, 200),
            tasks=scale.pick(100, 500),
        )


def write_seeded_project(folder: Path, sizes: Sizes) -> None:
    """Write a project with the tasks, into `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "triggerkit.toml").write_text('tasks = ["measured"]\n')
    given = {"tables": TABLES, "tasks": sizes.tasks, "queues": sizes.queues}
    (folder / "measured.py").write_text(_TASKS.format(**given))


def seed(connection: Connection, dsn: str, sizes: Sizes) -> None:
    """Fill the state that `triggerkit apply` made."""
    _fill_log(connection, dsn, sizes.entries)
    given = {
        "size": sizes.runs,
        "queues": sizes.queues,
        "tasks": sizes.tasks,
        "traceback": _TRACEBACK,
    }
    with _without_indexes(connection, "runs"):
        for first, last in _chunks(sizes.runs):
            connection.execute(_RUNS, {**given, "first": first, "last": last})
    connection.execute(_ATTEMPTS)
    connection.execute(_SPANS, [SPAN_S // 3])
    connection.execute(_PARKED, [sizes.parked])
    count = {"count": max(1_000, sizes.entries // 20)}
    connection.execute(_DELIVERIES, count)
    for step_s, kept_s in ((60, 26 * 3600), (900, SPAN_S), (3600, SPAN_S)):
        connection.execute(_ROLLUPS, {"step_s": step_s, "kept_s": kept_s})
    for statement in _MINUTES:
        connection.execute(statement, {"minutes": SPAN_S // 60})
    connection.execute(_QUEUES, [sizes.queues])
    connection.execute(_WORKER)
    connection.execute(_AUDIT, count)
    # As autovacuum leaves it.
    connection.execute("VACUUM ANALYZE")
    connection.execute("CHECKPOINT")


@contextmanager
def _without_indexes(connection: Connection, table: str) -> Iterator[None]:
    """Have a table no indexes meanwhile but that of its key: those of many rows are made faster at
    once."""
    found = connection.execute(_INDEXES, [table]).fetchall()
    for name, _ in found:
        connection.execute(f"DROP INDEX triggerkit.{name}".encode())
    yield
    for _, definition in found:
        connection.execute(definition.encode())


def _fill_log(connection: Connection, dsn: str, size: int) -> None:
    database = one(connection, "SELECT id FROM triggerkit.databases")
    connection.execute(_PLACES)
    with (
        connection.cursor() as cursor,
        cursor.copy("COPY places (table_name, key, partition) FROM STDIN") as copy,
    ):
        for table in (f"things_{n}" for n in range(TABLES)):
            for key in range(1, ROWS_EACH + 1):
                copy.write_row((table, key, partition_of("public", table, f'["{key}"]')))
    set_next = "UPDATE triggerkit.databases SET next_position = %s"
    for first, last in _chunks(size):
        connection.execute(set_next, [first])
        asyncio.run(_make_tables(dsn, database))
        given = {"database": database, "first": first, "last": last, "size": size}
        connection.execute(_ENTRIES, given)
    connection.execute(set_next, [size + 1])
    connection.execute("UPDATE triggerkit.cursors SET position = %s", [size - 50])


async def _make_tables(dsn: str, database: int) -> None:
    """Make the tables that entries at the log's head need, as its writer does."""
    async with writer.LogWriter.open(dsn, database):
        pass


def _chunks(size: int) -> list[tuple[int, int]]:
    firsts = range(1, size + 1, min(_CHUNK, tables.TABLE_PARTITION_SIZE // 2))
    return [(first, min(size, first + firsts.step - 1)) for first in firsts]

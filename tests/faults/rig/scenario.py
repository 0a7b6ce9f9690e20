"""A project under faults: `triggerkit dev` in a folder, a receiver, the truth, the history."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.faults.rig import truth
from tests.faults.rig.checker import check, explain
from tests.faults.rig.history import Bounds, Delivery, Effect, History, What
from tests.faults.rig.made_runs import deliveries_of
from tests.faults.rig.processes import FaultyDev
from tests.faults.rig.project import BATCH_SIZE, Via, tasks_of
from tests.faults.rig.receiver import Behaviour, ReceiverProcess
from tests.faults.rig.sampler import Sampler
from triggerkit.consumers.declare.apply import apply
from triggerkit.consumers.declare.declaration import Declared
from triggerkit.consumers.definition import rows
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.state.migrate import migrate
from triggerkit.supervisor.probes.listening import listen

#: What may be in flight of a consumer, with its eight partitions.
IN_FLIGHT = 8 * BATCH_SIZE

#: Seconds between two samples of what is confirmed.
SAMPLE_S = 0.1

#: The paths of the two consumers: the receiver answers one itself, and relays the other to `serve`.
OBSERVED = "/api/observe-items"
APPLIED = "/api/apply-items"

SECRET = "a webhook secret for the fault tests"

DRAINED = """
SELECT EXISTS (SELECT FROM triggerkit.events WHERE key = '["0"]')
    AND NOT EXISTS (SELECT FROM triggerkit.backfills WHERE state <> 'completed')
    AND NOT EXISTS (SELECT FROM triggerkit.cursors c JOIN triggerkit.events e
        ON e.partition = c.partition AND e.position > c.position
        AND (e.consumer_id IS NULL OR e.consumer_id = c.consumer_id))
    AND NOT EXISTS (SELECT FROM triggerkit.runs WHERE finished_at IS NULL)
"""

#: What there is while it is not drained.
OPEN = """
SELECT 'backfill ' || id || ' ' || state FROM triggerkit.backfills WHERE state <> 'completed'
UNION ALL
SELECT 'cursor ' || row_to_json(c) || ', log up to ' || max(e.position)
FROM triggerkit.cursors c JOIN triggerkit.events e
    ON e.partition = c.partition AND e.position > c.position
    AND (e.consumer_id IS NULL OR e.consumer_id = c.consumer_id)
GROUP BY c.*
UNION ALL
SELECT 'run ' || row_to_json(r) FROM (
    SELECT id, task, queue, status, blocked, attempt, crashes, concurrency_key, rank,
        scheduled_at, started_at, worker, clock_timestamp() AS now
    FROM triggerkit.runs WHERE finished_at IS NULL ORDER BY seq LIMIT 10) AS r
UNION ALL
SELECT 'worker ' || row_to_json(w) FROM triggerkit.workers w
"""


class Scenario:
    """One run: what is set up before the faults, and what is judged after them."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        redis_url: str,
        via: Via = "webhook",
        receiver: ReceiverProcess | None = None,
    ) -> None:
        self.via = via
        self.folder = folder / "project"
        self.folder.mkdir()
        self.url = database_url
        self.receiver = receiver or ReceiverProcess(folder / "received.jsonl")
        listener = listen("127.0.0.1", 0)
        port = listener.getsockname()[1]
        listener.close()
        self.environment = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "TRIGGERKIT_WEBHOOK_SECRET": SECRET,
            "TRIGGERKIT_PUBLIC_URL": self.receiver.url,
            # Set, so that `dev` starts no embeddings server.
            "OPENAI_API_KEY": "unused",
        }
        self.behave(Behaviour(), port)
        self.dev = FaultyDev(self.folder, port)
        self.port = port
        self._slot = ""
        self._publication = ""
        self._sampler: Sampler | None = None
        (self.folder / "tasks.py").write_text(tasks_of(via))

    def close(self) -> None:
        """End all processes."""
        self.dev.close()
        if self._sampler is not None:
            self._sampler.__exit__()
        self.receiver.__exit__()

    def behave(self, behaviour: Behaviour, port: int | None = None) -> None:
        """Have the receiver answer so; what is for `serve` is always relayed."""
        forward = {APPLIED: f"127.0.0.1:{port or self.port}"}
        self.receiver.behave(Behaviour(**{**_fields(behaviour), "forward": forward}))

    def prepare(
        self,
        rows_before: int,
        paths: Sequence[str] | None = None,
        when_changed: Sequence[str] | None = None,
        batch_size: int = BATCH_SIZE,
        sample_s: float = SAMPLE_S,
    ) -> None:
        """Make tables and consumers: every change from here on must arrive."""
        with self.connect() as connection:
            truth.create(connection, rows_before)
        asyncio.run(self._declare(paths or self._paths, when_changed, batch_size))
        with self.connect() as connection:
            truth.require(connection)
            found = connection.execute(
                "SELECT slot_name, publication_name FROM triggerkit.databases"
            ).fetchone()
        assert found is not None
        self._slot, self._publication = found
        self._sampler = Sampler(self.url, self._slot, sample_s)
        self._sampler.__enter__()

    def start(self, **more: str) -> None:
        """Start `triggerkit dev`."""
        self.dev.start_with({**self.environment, **more})

    @contextmanager
    def changing(self, seed: int, **options: Any) -> Iterator[truth.Workload]:
        """Change rows in the meantime."""
        workload = truth.Workload(self.url, seed, **options)
        workload.start()
        try:
            yield workload
        finally:
            workload.stop()

    def connect(self) -> truth.Connection:
        """A connection to the database."""
        return psycopg.connect(self.url, autocommit=True)

    def drain(self, deadline_s: float) -> float | None:
        """Commit a last change and wait until all has arrived; the seconds it took."""
        started = time.monotonic()
        with self.connect() as connection:
            connection.execute("INSERT INTO items VALUES (0, nextval('truth.versions'))")
            while time.monotonic() - started < deadline_s:
                if _one(connection, DRAINED):
                    return time.monotonic() - started
                time.sleep(0.05)
        return None

    def history(self, path: str, drained_s: float | None) -> History:
        """The run as consumer `path` saw it."""
        assert self._sampler is not None
        with self.connect() as connection:
            return History(
                committed=truth.committed(connection),
                delivered=self._delivered(connection, path),
                rows={
                    key: (version, row_hash)
                    for key, version, row_hash in connection.execute(
                        "SELECT id::text, version, truth.hash(items) FROM items"
                    )
                },
                commit_lsns=truth.commit_lsns(connection, self._publication),
                samples=list(self._sampler.samples),
                parked=_parked(connection, path),
                effects=_effects(connection) if path == APPLIED else [],
                effect_rows=_effect_rows(connection) if path == APPLIED else None,
                drained_s=drained_s,
                slot_lag_bytes=_slot_lag(connection, self._slot),
            )

    def judge(self, faults: int, drain_s: float = 30) -> None:
        """Drain, and fail the test if the checker finds anything for either consumer."""
        drained_s = self.drain(drain_s)
        if drained_s is None:
            print("not drained:", *self.open(), sep="\n  ")
        # Of what is made with the cursor's move nothing is ever in flight.
        repeats = 0 if self.via == "direct" else faults * IN_FLIGHT
        bounds = Bounds(repeats=repeats, effect_repeats=faults * IN_FLIGHT, drain_s=drain_s)
        for path in self._paths:
            violations = check(self.history(path, drained_s), bounds)
            assert not violations, f"{path}: {explain(violations)}\n{self.dev.explain()}"

    @property
    def _paths(self) -> Sequence[str]:
        return (APPLIED,) if self.via == "direct" else (OBSERVED, APPLIED)

    def _delivered(self, connection: truth.Connection, path: str) -> list[Delivery]:
        if self.via == "direct":
            return deliveries_of(connection, _name(path))
        return self.receiver.deliveries(path)

    def open(self) -> list[str]:
        """What there is while it is not drained."""
        with self.connect() as connection:
            return [what for (what,) in connection.execute(OPEN).fetchall()]

    async def _declare(
        self, paths: Sequence[str], when_changed: Sequence[str] | None, batch_size: int
    ) -> None:
        settings = Settings.parse(self.environment)
        definition = rows("items", timeout_s=3, batch_size=batch_size, when_changed=when_changed)
        declared = [Declared(_name(path), definition, path) for path in paths]
        if self.via == "direct":
            definition = rows("items", via="direct", batch_size=batch_size)
            definition = definition.model_copy(update={"task": _name(APPLIED)})
            declared = [Declared(_name(APPLIED), definition)]
        async with (
            await connect(settings.source_dsn, "test") as source,
            await connect(settings.state_dsn, "test") as state,
        ):
            await migrate(state)
            await apply(source, state, declared, settings.public_url)


def _name(path: str) -> str:
    return path.rpartition("/")[2].replace("-", "_")


def _fields(behaviour: Behaviour) -> dict[str, Any]:
    return {name: getattr(behaviour, name) for name in behaviour.__slots__}


def _one(connection: truth.Connection, query: str, *parameters: Any) -> Any:
    row = connection.execute(query, parameters).fetchone()
    return None if row is None else row[0]


def _slot_lag(connection: truth.Connection, slot: str) -> int:
    lag: int = _one(
        connection,
        "SELECT (pg_current_wal_lsn() - confirmed_flush_lsn)::bigint "
        "FROM pg_replication_slots WHERE slot_name = %s",
        slot,
    )
    return lag


def _parked(connection: truth.Connection, path: str) -> dict[str, What]:
    found = connection.execute(
        "SELECT p.body::jsonb FROM triggerkit.parked p "
        "JOIN triggerkit.consumers c ON c.id = p.consumer_id WHERE c.name = %s",
        [_name(path)],
    )
    return {
        body["metadata"]["idempotency_key"]: (
            body["metadata"]["record_pks"][0],
            body["action"],
            body["record"]["version"],
        )
        for (body,) in found
    }


def _effects(connection: truth.Connection) -> list[Effect]:
    found = connection.execute("SELECT key, lsn, idx, version FROM effects.begun ORDER BY seq")
    return [Effect(*row) for row in found]


def _effect_rows(connection: truth.Connection) -> dict[str, str]:
    found = connection.execute("SELECT id, hash FROM effects.items WHERE NOT deleted")
    return {str(key): str(row_hash) for key, row_hash in found}

"""Triggering a task for rows that are out of step: messages of the rows as they are now."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final, TypeAlias

import msgspec
import orjson
import psycopg

from triggerkit.change import Record
from triggerkit.consumers.backfill.chunk import ChunkReader
from triggerkit.consumers.backfill.current_rows import visible_place
from triggerkit.errors import ConfigurationError, InvalidPayload
from triggerkit.log.entry import partition_of
from triggerkit.message import row_key
from triggerkit.runs.client import Client
from triggerkit.runs.run import NewRun
from triggerkit.supervisor.verify.compare import Found, Verifiable
from triggerkit.supervisor.verify.in_flight import Pipeline

#: How often to look, at first and at last.
LOOK_S: Final = 0.01
LOOK_MOST_S: Final = 0.5

#: Unfinished runs that are asked for at once.
ASKED: Final = 5_000

#: A message, before it is JSON.
Message: TypeAlias = dict[str, Any]

_UNFINISHED = """
SELECT count(*) FROM triggerkit.runs WHERE id = ANY (%s) AND finished_at IS NULL
"""


@dataclass(slots=True)
class Repair:
    """Triggers runs for mismatches. `source` is not in a transaction.

    `triggered` counts rows; `refused` those that the task's type does not take, with the first
    one's error.
    """

    source: psycopg.AsyncConnection
    client: Client
    found: Verifiable
    reader: ChunkReader
    pipeline: Pipeline
    triggered: int = 0
    refused: int = 0
    refusal: str | None = None
    run_ids: list[str] = field(default_factory=list)
    _place: int = field(default=0, init=False)

    async def open(self) -> None:
        """Take a place in the WAL and wait until all that was committed before it is visible.

        Raises:
            ConfigurationError: messages cannot be made for the task.
            TriggerkitError: a transaction has been open for too long.
        """
        if self.found.task.payload_type.shape == "plain":
            raise ConfigurationError(
                f"task {self.found.task.name} has a transform, which --fix does not apply; "
                f"read the table again with: triggerkit backfill start {self.found.consumer}"
            )
        self._place = await visible_place(self.source)

    async def trigger(self, batch: Sequence[Found]) -> None:
        """Trigger the task for these mismatches, each with its row as it is now."""
        rows = {row.key: row.record for row in await self.reader.rows_of([f.key for f in batch])}
        messages: list[Message] = []
        for found in batch:
            record = rows.get(found.key)
            if record is not None:
                messages.append(self._message(found, "read", record))
            elif found.problem == "orphaned":
                messages.append(self._message(found, "delete", self.reader.key_record(found.key)))
        runs = list(self._runs(messages))
        if runs:
            self.run_ids += [handle.id for handle in await self.client.accept(runs)]

    async def wait(self, seconds: float) -> bool:
        """Wait until the triggered runs have ended, at most `seconds`; whether they have."""
        deadline, wait_s = monotonic() + seconds, LOOK_S
        for start in range(0, len(self.run_ids), ASKED):
            ids = self.run_ids[start : start + ASKED]
            async with self.client.pool.connection() as state:
                while await _one(state, _UNFINISHED, ids):
                    if monotonic() > deadline:
                        return False
                    await asyncio.sleep(wait_s)
                    wait_s = min(wait_s * 2, LOOK_MOST_S)
        return True

    def _runs(self, messages: Sequence[Message]) -> Iterator[NewRun]:
        """Batches of one partition, as the consumer's are: they queue with those."""
        if self.found.task.payload_type.shape != "batch":
            yield from self._runs_of_good(messages)
            return
        assert self.found.task.on is not None
        size = self.found.task.on.batch_size
        by_partition: defaultdict[int, list[Message]] = defaultdict(list)
        for message in messages:
            by_partition[self._partition(message)].append(message)
        for part in by_partition.values():
            for start in range(0, len(part), size):
                yield from self._batch_runs(part[start : start + size])

    def _batch_runs(self, messages: Sequence[Message]) -> Iterator[NewRun]:
        try:
            yield self._run(messages)
            self.triggered += len(messages)
        except InvalidPayload:
            yield from self._runs_of_good(messages)

    def _runs_of_good(self, messages: Sequence[Message]) -> Iterator[NewRun]:
        for message in messages:
            try:
                yield self._run([message])
                self.triggered += 1
            except InvalidPayload as error:
                self.refused += 1
                self.refusal = self.refusal or str(error)

    def _run(self, messages: Sequence[Message]) -> NewRun:
        task, table = self.found.task, self.found.table
        source = {"table": str(table), "commit_lsn": self._place}
        # By its JSON, since a record may hold values that only their encoder understands.
        payloads = [msgspec.json.decode(orjson.dumps(message)) for message in messages]
        if task.payload_type.shape == "batch":
            key = f"{self.found.consumer}/{self._partition(messages[0])}"
            return replace(task.new_run({"data": payloads}), concurrency_key=key, source=source)
        row = row_key(*table, messages[0]["metadata"]["record_pks"])
        source["key"] = row
        return replace(task.new_run(payloads[0]), concurrency_key=f"row/{row}", source=source)

    def _partition(self, message: Message) -> int:
        key = orjson.dumps(message["metadata"]["record_pks"]).decode()
        return partition_of(*self.found.table, key)

    def _message(self, found: Found, action: str, record: Record) -> Message:
        schema, table = self.found.table
        return {
            "record": record,
            "changes": None,
            "action": action,
            "metadata": {
                "table_schema": schema,
                "table_name": table,
                "record_pks": list(found.key),
                "commit_timestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
                "commit_lsn": self._place,
                "commit_idx": 0,
                "idempotency_key": f"verify.{self._place}.{row_key(schema, table, found.key)}",
                "position": None,
                "database": self.pipeline.database,
                "consumer": self.pipeline.consumer,
                "transaction_annotations": None,
            },
        }


async def _one(connection: psycopg.AsyncConnection, query: str, *parameters: Any) -> Any:
    row = await (await connection.execute(query, parameters)).fetchone()
    return None if row is None else row[0]

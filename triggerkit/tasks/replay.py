"""Replaying runs: with their own payload, an edited one, or with the rows as they are now."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import orjson
import psycopg
from psycopg.rows import class_row

from triggerkit.consumers.backfill.current_rows import current_messages
from triggerkit.errors import InvalidPayload, PreflightFailed, TriggerkitError, UnknownRun
from triggerkit.log.json_object import PAYLOAD_LEVELS, show_value
from triggerkit.runs.admin.browse import oldest_ids
from triggerkit.runs.admin.control import CHUNK, Progress
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.client import Client
from triggerkit.runs.run import FINAL, NewRun, RunOptions, RunRef, Status, first_run_id_at
from triggerkit.state.audit import note
from triggerkit.tasks.payload.encode import encode
from triggerkit.tasks.payload.payload_type import read_envelopes
from triggerkit.tasks.task import Task
from triggerkit.tasks.triggering import TriggerOptions, with_options

#: The statuses whose runs a filter replays.
FINISHED: Final[tuple[Status, ...]] = tuple(sorted(FINAL))  # type: ignore[arg-type] # all are

#: The tasks that are known here, by name.
Tasks = Mapping[str, Task[Any, Any, Any]]

#: A tag by which a bulk's runs are found. A replay of one of them was not made by that bulk.
_BULK_TAG = re.compile(r"bulk:\d+")

_OLD = """
SELECT id, task, queue, max_attempts, payload, items, concurrency_key, item_key, source, priority,
    tags, metadata, traceparent, full_keys, concurrency_per_key
FROM triggerkit.runs WHERE id = ANY (%s) ORDER BY id
"""


class Edited(NamedTuple):
    """A payload that takes the place of the run's own."""

    payload: Any


@dataclass(frozen=True, slots=True)
class Replayed:
    """Counts of runs that were made, and of those that could not be, with the first one's error."""

    runs: int = 0
    refused: int = 0
    refusal: str | None = None
    next: str | None = None
    looked: int = 0

    def and_then(self, part: Replayed) -> Replayed:
        """Return the counts of both, as far as the later one came."""
        return Replayed(
            self.runs + part.runs,
            self.refused + part.refused,
            self.refusal or part.refusal,
            part.next,
            self.looked + part.looked,
        )


class _Old(NamedTuple):
    id: str
    task: str
    queue: str
    max_attempts: int
    payload: str
    items: int | None
    concurrency_key: str | None
    item_key: str | None
    source: dict[str, Any] | None
    priority: int
    tags: list[str]
    metadata: dict[str, Any]
    traceparent: str | None
    full_keys: dict[str, str] | None
    concurrency_per_key: int


@dataclass(frozen=True, slots=True)
class Replayer:
    """Makes the runs. A payload is checked by its task, where that is among `tasks`."""

    client: Client
    tasks: Tasks
    actor: str

    async def replay(
        self,
        run_id: str,
        edited: Edited | None = None,
        current: psycopg.AsyncConnection | None = None,
        *,
        once: str | None = None,
        asked: TriggerOptions | None = None,
    ) -> RunRef:
        """Return a new run of `run_id`; with `current`, a connection to the source database, of its
        rows as they are now. What is asked for `once` makes one run, however often it is asked.
        Options that are `asked` for take the place of the old run's.

        Raises:
            UnknownRun: there is none of this id.
            InvalidPayload: its task does not take the payload.
            TriggerkitError: it is of no row.
        """
        async with self.client.pool.connection() as state:
            found = await _old(state, [run_id])
            if not found:
                raise UnknownRun(f"no run has the id {run_id!r}; see `triggerkit runs list`")
            new = await self._new(state, found[0], edited, current)
        new = replace(new, idempotency_key=once)
        [handle] = await self.client.accept([_as_asked(new, asked) if asked else new])
        if not handle.duplicate:
            detail = {"run": handle.id, "payload": _payload_source(edited, current)}
            async with self.client.pool.connection() as state:
                await note(state, self.actor, "replay run", f"run {run_id}", detail)
        return handle

    async def replay_all(
        self,
        wanted: RunFilter,
        *,
        current: psycopg.AsyncConnection | None = None,
        most: int | None = None,
        cursor: str | None = None,
        progress: Progress = lambda _: None,
    ) -> Replayed:
        """New runs of the finished ones that fit, oldest first, a chunk at a time; at most `most`.

        `cursor` is the `next` of the part before. What is replayed here is not replayed again.

        Raises:
            TriggerkitError: the runs are not found in time.
        """
        total, looked = Replayed(next=cursor), 0
        try:
            while most is None or looked < most:
                limit = CHUNK if most is None else min(CHUNK, most - looked)
                part = await self.replay_next(
                    wanted, limit=limit, cursor=total.next, current=current
                )
                looked += part.looked
                progress(part.looked)
                total = total.and_then(part)
                if total.next is None:
                    break
        finally:
            detail = {"filter": wanted.as_json(), "runs": total.runs}
            async with self.client.pool.connection() as state:
                await note(state, self.actor, "replay runs", "runs", detail)
        return total

    async def replay_next(
        self,
        wanted: RunFilter,
        *,
        limit: int,
        cursor: str | None,
        current: psycopg.AsyncConnection | None = None,
        mark: str | None = None,
    ) -> Replayed:
        """Make new runs of the oldest finished ones that fit, at most `limit`, from `cursor` on;
        without a line in the audit. With a `mark` the new runs have it as a tag, and a run of which
        it made one before is not replayed again.

        Raises:
            TriggerkitError: the runs are not found in time.
        """
        after, before = _bounds(cursor)
        finished = finished_of(wanted)
        if not finished.statuses:
            return Replayed()
        async with self.client.pool.connection() as state:
            ids = await oldest_ids(state, finished, limit=limit, after=after, before=before)
        part = await self._replay_part(ids, current, mark)
        return replace(part, next=f"{ids[-1]}/{before}" if len(ids) == limit else None)

    async def _replay_part(
        self, ids: Sequence[str], current: psycopg.AsyncConnection | None, mark: str | None
    ) -> Replayed:
        made: list[NewRun] = []
        refusals: list[str] = []
        async with self.client.pool.connection() as state:
            for old in await _old(state, ids):
                try:
                    new = await self._new(state, old, None, current)
                except (InvalidPayload, PreflightFailed, TriggerkitError) as error:
                    refusals.append(f"{old.id}: {error}")
                else:
                    made.append(new if mark is None else _marked(new, old.id, mark))
        await self.client.accept(made)
        return Replayed(len(made), len(refusals), next(iter(refusals), None), looked=len(ids))

    async def _new(
        self,
        state: psycopg.AsyncConnection,
        old: _Old,
        edited: Edited | None,
        current: psycopg.AsyncConnection | None,
    ) -> NewRun:
        payload = old.payload.encode()
        if edited is not None:
            payload = encode(edited.payload)
        elif current is not None:
            payload = await _of_now(state, current, old)
        is_own = edited is None and current is None
        return replace(
            self._run_of(old, payload, is_own=is_own),
            concurrency_key=old.concurrency_key,
            item_key=old.item_key,
            full_keys=_kept_keys(old),
            source=old.source,
            options=RunOptions(
                priority_s=old.priority,
                tags=tuple(tag for tag in old.tags if not _BULK_TAG.fullmatch(tag)),
                metadata=old.metadata or None,
                traceparent=old.traceparent,
                replay_of=old.id,
                concurrency_per_key=old.concurrency_per_key,
            ),
        )

    def _run_of(self, old: _Old, payload: bytes, *, is_own: bool) -> NewRun:
        """Return the run without what is taken from the old one, its payload checked if it is
        another."""
        task = self.tasks.get(old.task)
        items = old.items
        if not is_own and (task is None or task.payload_type.shape == "batch"):
            items = None if old.items is None else len(read_envelopes(payload))
        if task is None:
            return NewRun(old.task, old.queue, old.max_attempts, payload, items)
        if not is_own:
            _check(task, payload)
        return task.run_of(payload, items)


def finished_of(wanted: RunFilter) -> RunFilter:
    """Return the filter of those that can be replayed; without a status where none can."""
    return replace(wanted, statuses=tuple(s for s in wanted.statuses or FINISHED if s in FINAL))


def _marked(new: NewRun, old_id: str, mark: str) -> NewRun:
    options = new.options or RunOptions()
    return replace(
        new,
        idempotency_key=f"{mark}:{old_id}",
        options=replace(options, tags=(*(options.tags or ()), mark)),
    )


def _as_asked(run: NewRun, asked: TriggerOptions) -> NewRun:
    """Return the run with the options that are asked for, and its own where they leave it open."""
    own = run.options or RunOptions()
    if "concurrency_key" in asked and run.full_keys is not None:
        kept = {n: key for n, key in run.full_keys.items() if n != "concurrency_key"}
        run = replace(run, full_keys=kept or None)
    changed = with_options(run, asked, own)
    options = changed.options or own
    return replace(
        changed,
        options=replace(
            options,
            tags=options.tags if "tags" in asked else own.tags,
            metadata=options.metadata if "metadata" in asked else own.metadata,
            traceparent=own.traceparent,
            replay_of=own.replay_of,
            concurrency_per_key=own.concurrency_per_key,
        ),
    )


def _kept_keys(old: _Old) -> dict[str, str] | None:
    kept = {n: key for n, key in (old.full_keys or {}).items() if n != "idempotency_key"}
    return kept or None


def _check(task: Task[Any, Any, Any], payload: bytes) -> None:
    if task.payload_type.shape == "batch":
        task.payload_type.changes(read_envelopes(payload))
    else:
        task.payload_type.read(payload)


async def _old(state: psycopg.AsyncConnection, ids: Sequence[str]) -> list[_Old]:
    async with state.cursor(row_factory=class_row(_Old)) as cursor:
        return await (await cursor.execute(_OLD, [list(ids)])).fetchall()


async def _of_now(
    state: psycopg.AsyncConnection, source: psycopg.AsyncConnection, old: _Old
) -> bytes:
    # Of a message only its metadata is read.
    payload = show_value(old.payload.encode(), PAYLOAD_LEVELS)
    if old.items is not None:
        return orjson.dumps({"data": await current_messages(source, state, payload["data"])})
    message = payload if isinstance(payload, dict) else {}
    return orjson.dumps((await current_messages(source, state, [message]))[0])


def _bounds(cursor: str | None) -> tuple[str, str]:
    """Between which ids is replayed: those that are made meanwhile are not among them."""
    if cursor is None:
        return "", first_run_id_at(time.time())
    after, _, before = cursor.partition("/")
    return after, before


def _payload_source(edited: Edited | None, current: psycopg.AsyncConnection | None) -> str:
    return "edited" if edited is not None else "original" if current is None else "current row"

"""Answer "why?" for a row, a change, or a run: the same for the command and the API."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from shlex import quote
from typing import Any, Final

import psycopg
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.cursors.known import read_consumers
from triggerkit.consumers.definition import TableName
from triggerkit.consumers.source.database import CaptureNames, Database
from triggerkit.consumers.trace.changes import Trace, trace, traces_of
from triggerkit.consumers.trace.runs import runs_made
from triggerkit.errors import CannotConnect, ConfigurationError, TriggerkitError, UnknownRun
from triggerkit.log.search import Searched, bounds_of, position_of_commit, search_row
from triggerkit.message import row_key
from triggerkit.runs.admin.workers import list_workers
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.state.reading import Together
from triggerkit.state.short_key import short_key
from triggerkit.tasks.task import Task
from triggerkit.tasks.verification import problem_of_row
from triggerkit.why.answer import DONE, NEEDS_WORKER, Answer, Cause, Step, Subject
from triggerkit.why.capture_cause import (
    Capture,
    capture_of,
    followers_of,
    is_captured,
    not_captured,
    nowhere,
)
from triggerkit.why.consumer_cause import cause_at_consumer
from triggerkit.why.effect import Causes, Effect, conclusion
from triggerkit.why.row_text import read_row
from triggerkit.why.run_cause import Explained, cause_of_run, origin_of_run, runs_of_row, tasks_of
from triggerkit.why.source_row import look_at_row, unread
from triggerkit.why.steps import steps_of

#: Changes of a row that are looked at, the newest ones.
MOST_CHANGES = 5

#: The idempotency keys of messages (`consumers/render.py`): of a change, by consumer, LSN and
#: index, and of a row that a backfill read.
_OF_CHANGE: Final = re.compile(r"(\d{1,9})\.\d+\.\d*\.(\d{1,10})\.(\d{1,19})\.(\d{1,9})")
_OF_ROW: Final = re.compile(r"(\d{1,9})\.\d+\.b\d+\.(.+)", re.DOTALL)

#: A table's name, maybe: of its row the key was left out.
_NAME: Final = re.compile(r'[\w$".]+')

#: The database that DATABASE_URL names, else the first.
_DATABASE = """
SELECT id, name, slot_name, publication_name, slot_epoch, coalesce(system_identifier, '')
    AS system_identifier
FROM triggerkit.databases ORDER BY name = %s DESC, id LIMIT 1
"""


@dataclass(slots=True)
class _Found:
    """What was gathered of a row: the changes looked at, the runs they made, and the causes."""

    traces: list[Trace] = field(default_factory=list)
    runs: list[Explained] = field(default_factory=list)
    causes: Causes = field(default_factory=dict)


class Why:
    """Explains what happened to rows, by the state, the source and the project's tasks."""

    def __init__(
        self,
        states: AsyncConnectionPool,
        settings: Settings,
        tasks: Sequence[Task[Any, Any, Any]] = (),
    ) -> None:
        self._states = states
        self._settings = settings
        self._tasks = tasks

    async def row(
        self, table: TableName, values: Sequence[str], consumer: str | None = None
    ) -> Answer:
        """Explain why a row has no effect, or that it has.

        Raises:
            ConfigurationError: there is no such table, or the values do not fit its key.
        """
        async with AsyncExitStack() as stack:
            state = await self._state(stack)
            database = await self._database(state)
            source = await self._source(stack, state)
            row = unread(values)
            if source is not None:
                names = CaptureNames.of(self._settings)
                row = await look_at_row(source, names, database, table, values)
            subject = Subject(str(table), row.values, consumer=consumer)
            async with Together(state) as reads:
                known, capture, log = await asyncio.gather(
                    read_consumers(reads, database.id),
                    capture_of(reads, database, table, row),
                    bounds_of(reads, database.id),
                )
            followers = followers_of(known, table, consumer)
            if not followers:
                return self._unfollowed(subject, table)
            searched = await search_row(state, log, table.schema, table.name, row.key, MOST_CHANGES)
            capture = replace(capture, consumers=followers)
            traces = await traces_of(state, database, searched.entries, known)
            found = await self._gathered(state, capture, searched, traces)
            effects = await self._effects(source, followers, row.values)
            cause = conclusion(found.causes, effects)
            gaps = [gap for follower in followers for gap in capture.gaps.get(follower.id, ())]
            steps = steps_of(found.traces, found.runs, gaps)
            return _answer(subject, cause, steps, searched.searched_from)

    async def change(self, position: int, consumer: str | None = None) -> Answer:
        """Explain what became of the change at a position of the log.

        Raises:
            TriggerkitError: the log has no such position, or not any more.
        """
        async with AsyncExitStack() as stack:
            state = await self._state(stack)
            database = await self._database(state)
            found = await trace(self._states, database.id, position, consumer)
            table = TableName.parse(found.table)
            subject = Subject(found.table, list(map(str, found.key)), position, consumer=consumer)
            followers = followers_of(await read_consumers(state, database.id), table, consumer)
            if not followers:
                return self._unfollowed(subject, table)
            gathered = _Found(traces=[found])
            for follower in followers:
                await self._at(state, follower, gathered)
            source = await self._source(stack, state)
            effects = await self._effects(source, followers, subject.key or ())
            cause = conclusion(gathered.causes, effects)
            return _answer(subject, cause, steps_of([found], gathered.runs), None)

    async def run(self, run_id: str) -> Answer:
        """Explain why a run does not execute, or how it ended.

        Raises:
            UnknownRun: there is none of this id.
        """
        async with AsyncExitStack() as stack:
            state = await self._state(stack)
            task, origin, place = await origin_of_run(state, run_id)
            key = origin.get("key")
            runs = await runs_of_row(state, {run_id: task}, key)
            cause = await self._alive(await cause_of_run(state, runs[0]))
        _, values = read_row(key or "") or (None, None)
        subject = Subject(origin.get("table"), values, origin.get("position"), run_id)
        traces = []
        if subject.position is not None and place is not None:
            # What retention dropped is not known any more; the run says enough.
            with suppress(TriggerkitError):
                traces.append(await trace(self._states, *place, run_id=run_id))
        return _answer(subject, cause, steps_of(traces, runs), None)

    async def idempotency_key(self, key: str) -> Answer:
        """Explain what became of a message, or of a run, by its idempotency key.

        Raises:
            UnknownRun: nothing that is kept has it.
        """
        answer = await self._of_key(key)
        return replace(answer, subject=replace(answer.subject, idempotency_key=key))

    async def _of_key(self, key: str) -> Answer:
        async with AsyncExitStack() as stack:
            state = await self._state(stack)
            runs = await runs_made(state, [short_key(key)], [])
            if runs:
                return await self.run(runs[-1].id)
            if of_change := _OF_CHANGE.fullmatch(key):
                database_id, name = await self._consumer(state, int(of_change[1]))
                place = int(of_change[2]), int(of_change[3]), int(of_change[4])
                position = await position_of_commit(state, database_id, *place)
                if position is not None:
                    return await self.change(position, name)
            elif (of_row := _OF_ROW.fullmatch(key)) and (row := read_row(of_row[2])) is not None:
                _, name = await self._consumer(state, int(of_row[1]))
                return await self.row(TableName.parse(row[0]), row[1], name)
        hint = f"; of a row, give its key, too: triggerkit why {quote(key)} KEY"
        unknown = "no run, and no message that the log still has, has this idempotency key"
        raise UnknownRun(unknown + (hint if _NAME.fullmatch(key) else ""))

    async def _consumer(self, state: psycopg.AsyncConnection, consumer_id: int) -> tuple[int, str]:
        cursor = await state.execute(
            "SELECT database_id, name FROM triggerkit.consumers WHERE id = %s", [consumer_id]
        )
        row = await cursor.fetchone()
        if row is None:
            raise UnknownRun(f"the key is of the consumer {consumer_id}, which is not there")
        return row[0], row[1]

    async def _database(self, state: psycopg.AsyncConnection) -> Database:
        name = psycopg.conninfo.conninfo_to_dict(self._settings.source_dsn).get("dbname")
        async with state.cursor(row_factory=class_row(Database)) as cursor:
            await cursor.execute(_DATABASE, [name])
            found = await cursor.fetchone()
        if found is None:
            raise ConfigurationError("nothing is captured yet; begin with: triggerkit apply")
        return found

    async def _state(self, stack: AsyncExitStack) -> psycopg.AsyncConnection:
        # Not of the pool, which a trace asks for more: who holds one and waits could wait for ever.
        state = await connect(self._settings.state_dsn, "triggerkit why")
        return await stack.enter_async_context(state)

    async def _source(
        self, stack: AsyncExitStack, state: psycopg.AsyncConnection
    ) -> psycopg.AsyncConnection | None:
        if self._settings.source_dsn == self._settings.state_dsn:
            return state
        try:
            source = await connect(self._settings.source_dsn, "triggerkit why")
        except CannotConnect:
            return None
        return await stack.enter_async_context(source)

    def _unfollowed(self, subject: Subject, table: TableName) -> Answer:
        """Answer that no consumer follows the table, though code may declare one."""
        declared = [t.name for t in self._tasks if t.on and str(table) in t.on.tables]
        if declared:
            cause = Cause(
                "not_applied",
                f"{', '.join(declared)} declares that it follows {table}, and that was not applied",
                "triggerkit apply",
            )
        else:
            name = f"{table.schema}_{table.name}" if table.schema != "public" else table.name
            cause = Cause(
                "no_consumer",
                f"no consumer follows {table}; a task does by @task(on=rows({str(table)!r}))",
                f"triggerkit consumers create {name} --table {quote(str(table))}  # to pull its "
                "messages",
            )
        return _answer(subject, cause, [], None)

    async def _gathered(
        self,
        state: psycopg.AsyncConnection,
        capture: Capture,
        searched: Searched,
        traces: list[Trace],
    ) -> _Found:
        found = _Found(traces)
        for consumer in capture.consumers:
            await self._at(state, consumer, found)
        is_there = is_captured(capture.row, searched)
        if is_there is not True:
            lost = next(not_captured(capture, searched, is_sure=is_there is False), None)
            if lost is not None:
                found.causes = {None: lost}
        if not found.causes:
            found.causes[None] = nowhere(capture, searched)
        return found

    async def _at(self, state: psycopg.AsyncConnection, consumer: Consumer, found: _Found) -> None:
        """Find the cause at one consumer: that of the newest change which it wants."""
        unwanted: Cause | None = None
        for changed in found.traces:
            way = next((way for way in changed.consumers if way.consumer == consumer.name), None)
            if way is None:
                continue
            row = row_key(*TableName.parse(changed.table), changed.key)
            runs = await runs_of_row(state, tasks_of(way.runs), row)
            found.runs += runs
            if runs and way.state in ("delivered", "passed"):
                cause = await self._alive(await cause_of_run(state, runs[0]))
            else:
                url = self._settings.public_url
                cause = await cause_at_consumer(state, consumer, changed, way, url)
            if way.unwanted in ("when_changed", "actions"):
                # The change before may be on its way, or have failed.
                unwanted = unwanted or cause
                continue
            if unwanted is not None and cause.code in DONE:
                earlier = f"{unwanted.conclusion}; of the change before: {cause.conclusion}"
                cause = replace(unwanted, conclusion=earlier)
            found.causes[consumer.name] = cause
            return
        if unwanted is not None:
            found.causes[consumer.name] = unwanted

    async def _alive(self, cause: Cause) -> Cause:
        """Return the cause; where it rests on workers that are silent, that none is running."""
        if cause.code not in NEEDS_WORKER:
            return cause
        workers = await list_workers(self._states)
        if not workers or any(worker.alive is not False for worker in workers):
            return cause
        hosts = ", ".join(sorted({worker.hostname for worker in workers}))
        detail = f"no worker is running: that on {hosts} is silent; {cause.conclusion}"
        return Cause("no_worker", detail, "triggerkit worker")

    async def _effects(
        self,
        source: psycopg.AsyncConnection | None,
        consumers: Sequence[Consumer],
        key: Sequence[str],
    ) -> dict[str, Effect]:
        """Return how the row stands to its effect by each consumer's task."""
        found: dict[str, Effect] = {}
        tasks = {task.on.name or task.name: task for task in self._tasks if task.on is not None}
        for consumer in consumers:
            task, how = tasks.get(consumer.name), None
            if source is not None and task is not None:
                how = await problem_of_row(source, task.verify, key)
            found[consumer.name] = Effect("" if task is None else task.name, how or "unknown")
        return found


def _answer(
    subject: Subject, cause: Cause, steps: Sequence[Step], searched_from: int | None
) -> Answer:
    return Answer(subject, cause.conclusion, cause.code, cause.remedy, steps, searched_from)

"""Runs are replayed: with their own payload, an edited one, and with their rows as they are now."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import psycopg
import pytest

from tests.integration.run_state import RunState, completed, new_run
from tests.integration.serving import message
from triggerkit import Change, task
from triggerkit.errors import InvalidPayload, TriggerkitError, UnknownRun
from triggerkit.runs.admin.filter import RunFilter
from triggerkit.runs.client import Client
from triggerkit.runs.run import RunOptions, RunRef
from triggerkit.state.connect import connect
from triggerkit.tasks.replay import Edited, Replayed, Replayer
from triggerkit.tasks.task import Task

TABLE = (
    "CREATE DOMAIN public.amount AS numeric; "
    "CREATE TABLE public.posts (id bigint PRIMARY KEY, text text, big bigint, price public.amount, "
    "facts jsonb, at timestamptz)"
)

ROW = (
    "INSERT INTO public.posts VALUES (1, 'now', 9007199254740993, 12345678901234567890.10, "
    "'{\"a\": [1]}', '2026-01-02 03:04:05.6Z')"
)


def replay(
    state: RunState,
    run_id: str,
    *tasks: Task[Any, Any, Any],
    edited: Edited | None = None,
    current: bool = False,
) -> RunRef:
    async def replayed() -> RunRef:
        client = await Client.open(state.settings)
        try:
            replayer = Replayer(client, {t.name: t for t in tasks}, "test")
            if not current:
                return await replayer.replay(run_id, edited)
            async with await connect(state.settings.source_dsn, "test") as source:
                return await replayer.replay(run_id, current=source)
        finally:
            await client.close()

    return asyncio.run(replayed())


def replay_all(state: RunState, wanted: RunFilter, **given: Any) -> Replayed:
    async def replayed() -> Replayed:
        client = await Client.open(state.settings)
        try:
            return await Replayer(client, {}, "test").replay_all(wanted, **given)
        finally:
            await client.close()

    return asyncio.run(replayed())


def payload(state: RunState, run_id: str) -> Any:
    return orjson.loads(state.run(run_id)["payload"])


def finish(state: RunState, *run_ids: str) -> None:
    state.take()
    with state.claims() as claims:
        claims.complete([completed(run) for run in claims.claim(run_ids)])


def test_a_replay_is_a_run_of_its_own_with_all_that_made_the_first(state: RunState) -> None:
    options = RunOptions(priority_s=5, tags=("red",), metadata={"a": 1}, ttl_s=60.0)
    source = {"consumer": "posts", "position": 7}
    [first] = state.accept(
        new_run("row/1", idempotency_key="once", source=source, options=options, items=1)
    )
    finish(state, first.id)
    second = replay(state, first.id)
    run, before = state.run(second.id), state.run(first.id)
    assert (run["status"], run["attempt"], run["replay_of"]) == ("queued", 0, first.id)
    kept = ("task", "queue", "payload", "items", "concurrency_key", "source", "tags", "metadata",
            "priority", "max_attempts")  # fmt: skip
    assert {name: run[name] for name in kept} == {name: before[name] for name in kept}
    assert (run["idempotency_key"], run["expires_at"]) == (None, None)
    assert state.pushed() == [second.id]
    [noted] = state.rows("SELECT to_jsonb(a) FROM triggerkit.audit a")
    assert (noted["action"], noted["subject"]) == ("replay run", f"run {first.id}")
    assert noted["detail"] == {"run": second.id, "payload": "original"}
    with pytest.raises(UnknownRun):
        replay(state, "run_x")


def test_an_edited_payload_is_checked_by_its_task(state: RunState) -> None:
    @task(name="work", retry=7)
    def work(number: int) -> None: ...

    [first] = state.accept(new_run(payload=b"1"))
    second = replay(state, first.id, work, edited=Edited(2))
    assert (payload(state, second.id), state.run(second.id)["max_attempts"]) == (2, 7)
    with pytest.raises(InvalidPayload):
        replay(state, first.id, work, edited=Edited("x"))
    assert payload(state, replay(state, first.id, edited=Edited("x")).id) == "x"
    assert len(state.statuses()) == 3


def test_the_current_row_is_read_as_a_backfill_reads_it(state: RunState) -> None:
    @task(name="work")
    def work(change: Change[dict[str, Any]]) -> None: ...

    state.connection.execute(TABLE.encode())
    state.connection.execute(ROW.encode())
    before = message(1, xid=5, unchanged=["text"], database={"id": "1", "name": "x", "epoch": 3})
    [first] = state.accept(new_run(payload=orjson.dumps(before), source={"key": "x"}))
    found = payload(state, replay(state, first.id, work, current=True).id)
    assert (found["action"], found["changes"]) == ("read", None)
    assert found["record"] == {
        "id": 1,
        "text": "now",
        "big": 9007199254740993,
        "price": "12345678901234567890.10",
        "facts": {"a": [1]},
        "at": "2026-01-02T03:04:05.600000Z",
    }
    metadata = found["metadata"]
    [place] = state.rows("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
    assert 0 < place - metadata["commit_lsn"] < 10_000_000
    assert (metadata["record_pks"], metadata["consumer"]) == (["1"], {"id": "1", "name": "posts"})
    assert "xid" not in metadata
    assert "unchanged" not in metadata
    assert metadata["idempotency_key"] != before["metadata"]["idempotency_key"]


def test_a_row_that_is_gone_is_a_delete_and_a_batch_has_each_of_its_rows(state: RunState) -> None:
    @task(name="work")
    def work(batch: list[Change[dict[str, Any]]]) -> None: ...

    state.connection.execute(TABLE.encode())
    state.connection.execute(ROW.encode())
    body = orjson.dumps({"data": [message(1), message(2)]})
    [first] = state.accept(new_run(payload=body, items=2))
    second = replay(state, first.id, work, current=True)
    found = payload(state, second.id)["data"]
    assert [(m["action"], m["record"]["id"]) for m in found] == [("read", 1), ("delete", 2)]
    assert found[1]["record"] == {"id": 2}
    assert state.run(second.id)["items"] == 2


def test_a_change_that_is_not_visible_yet_is_waited_for(state: RunState) -> None:
    """Else its row would be taken for the late one."""
    state.connection.execute(TABLE.encode())
    state.connection.execute(ROW.encode())
    [first] = state.accept(new_run(payload=orjson.dumps(message(1))))
    with psycopg.connect(state.settings.source_dsn) as writing:
        writing.execute("UPDATE public.posts SET text = 'later'")

        async def both() -> RunRef:
            loop = asyncio.get_running_loop()
            replaying = loop.run_in_executor(None, lambda: replay(state, first.id, current=True))
            await loop.run_in_executor(None, state.wait_for, looked)
            writing.commit()
            return await replaying

        def looked() -> bool:
            return bool(
                state.rows(
                    "SELECT FROM pg_stat_activity WHERE query LIKE '%%xmin%%' "
                    "AND pid <> pg_backend_pid() AND application_name = 'test'"
                )
            )

        found = payload(state, asyncio.run(both()).id)
    assert found["record"]["text"] == "later"


def test_what_is_of_no_row_says_so(state: RunState) -> None:
    truncate = message(1, record_pks=[])
    for body in (b"1", b"{}", orjson.dumps(truncate)):
        [first] = state.accept(new_run(payload=body))
        with pytest.raises(TriggerkitError, match="not a message about a row"):
            replay(state, first.id, current=True)


def test_bulk_replay_takes_the_finished_runs_oldest_first_and_each_once(state: RunState) -> None:
    handles = [state.accept(new_run(payload=b"%d" % n))[0] for n in range(5)]
    finish(state, *(handle.id for handle in handles[:4]))
    first = replay_all(state, RunFilter(), most=3)
    assert (first.runs, first.next is not None) == (3, True)
    made = state.rows("SELECT id, replay_of FROM triggerkit.runs ORDER BY seq OFFSET 5")
    assert [of for _, of in made] == sorted(handle.id for handle in handles[:4])[:3]
    finish(state, *(run_id for run_id, _ in made))
    rest = replay_all(state, RunFilter(), cursor=first.next)
    assert (rest.runs, rest.next) == (1, None)
    assert len(state.statuses()) == 9


def test_bulk_replay_goes_on_past_what_cannot_be_replayed(state: RunState) -> None:
    state.connection.execute(TABLE.encode())
    [plain] = state.accept(new_run(payload=b"1"))
    [of_row] = state.accept(new_run(payload=orjson.dumps(message(1))))
    finish(state, plain.id, of_row.id)

    async def replayed() -> Replayed:
        client = await Client.open(state.settings)
        async with await connect(state.settings.source_dsn, "test") as source:
            done = await Replayer(client, {}, "test").replay_all(
                RunFilter(statuses=("completed",)), current=source
            )
        await client.close()
        return done

    done = asyncio.run(replayed())
    assert (done.runs, done.refused) == (1, 1)
    assert plain.id in (done.refusal or "")

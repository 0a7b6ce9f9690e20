"""Backfills are started, refused, paused, resumed and canceled, and fail with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.consumers.backfill.operator import Operator, Scene, prepared
from tests.integration.pipeline import declare, execute, streaming
from tests.receiver import Receiver
from triggerkit.consumers.definition import TableName, rows
from triggerkit.errors import ConfigurationError, TriggerkitError, UnknownConsumer
from triggerkit.settings import Settings


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"consumer": "nobody"}, ["nobody", "known consumers: test"]),
        ({"tables": [TableName("public", "other")]}, ["public.other", "public.items"]),
        ({"sort_by": "colour"}, ["colour", "id, version, name"]),
        ({"sort_by": "version", "from_": "blue"}, ["version", "integer", "'blue'"]),
        ({"from_": "3"}, ["--sort-by"]),
        ({"rows_per_s": 0}, ["at least 1"]),
    ],
    ids=["consumer", "table", "column", "bound", "no column", "rate"],
)
def test_what_cannot_be_read_is_refused_by_name(
    scene: Scene, options: dict[str, Any], words: list[str]
) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 1)
        with pytest.raises((ConfigurationError, UnknownConsumer)) as refused:
            await operator.start(**options)
        assert all(word in str(refused.value) for word in words), refused.value
        assert await operator.store.list(all_=True) == []

    scene(scenario)


def test_a_second_backfill_of_a_table_waits_for_the_end_of_the_first(scene: Scene) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 1)
        first = await operator.start()
        with pytest.raises(TriggerkitError, match=f"backfill {first} of public.items"):
            await operator.start()
        with pytest.raises(TriggerkitError, match=r"is active: it cannot be resumed"):
            await operator.store.resume(first)
        await operator.store.cancel(first)
        second = await operator.start()
        with pytest.raises(TriggerkitError, match=r"is canceled: it cannot be paused"):
            await operator.store.pause(first)
        with pytest.raises(TriggerkitError, match=f"no backfill 999; open backfills: {second}"):
            await operator.store.pause(999)
        cursor = await operator.state.execute(
            "SELECT action, detail ->> 'backfill' FROM triggerkit.audit "
            "WHERE action LIKE 'backfill%' ORDER BY id"
        )
        assert await cursor.fetchall() == [
            ("backfill start", str(first)),
            ("backfill cancel", str(first)),
            ("backfill start", str(second)),
        ]

    scene(scenario)


def test_a_paused_backfill_reads_no_more_and_goes_on_where_it_was(scene: Scene) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 3_000, batch_size=100)
        backfill_id = await operator.start(rows_per_s=1_000)
        async with streaming(operator.settings, receiver):
            await operator.until_read(backfill_id, 1)
            await operator.store.pause(backfill_id)
            await operator.until_closed(backfill_id)
            read = (await operator.one(backfill_id)).rows_read
            assert 0 < read < 3_000
            # Another backfill runs through meanwhile: were the paused one read, it would move.
            await declare(operator.settings, receiver, rows("items"), name="other")
            await operator.until_state(backfill_id + 1, "completed")
            assert (await operator.one(backfill_id)).rows_read == read
            await operator.store.resume(backfill_id)
            done = await operator.until_state(backfill_id, "completed")
        assert (done.rows_read, done.rows_logged) == (3_000, 3_000)

    scene(scenario)


def test_when_changed_is_off_exactly_while_rows_are_read(scene: Scene) -> None:
    """The span closes where reading ended, when it was paused, and opens again over the pause."""

    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 1_000, when_changed=["name"])
        backfill_id = await operator.start(rows_per_s=300)

        async def version_set(row: int, version: int) -> None:
            await execute(
                operator.settings, f"UPDATE items SET version = {version} WHERE id = {row}"
            )

        async def update_arrives(row: int, version: int) -> None:
            await version_set(row, version)
            await receiver.until(lambda: (str(row), version) in updates(receiver))

        async with streaming(operator.settings, receiver):
            await operator.until_read(backfill_id, 1)
            await update_arrives(1, 1)
            await operator.store.pause(backfill_id)
            await operator.until_closed(backfill_id)
            first, closed = await operator.span(backfill_id)
            assert first <= closed
            await version_set(1, 2)
            await execute(operator.settings, "UPDATE items SET name = 'seen' WHERE id = 1")
            await receiver.until(lambda: any(m["record"]["name"] for m in receiver.messages))
            assert ("1", 2) not in updates(receiver)[:-1]
            await operator.store.resume(backfill_id)

            async def reopened() -> bool:
                return await operator.span(backfill_id) == (first, None)

            await operator.until(reopened)
            await operator.until_read(backfill_id, 600)
            await update_arrives(1, 3)
            await operator.store.cancel(backfill_id)
            await operator.until_closed(backfill_id)
            again, end = await operator.span(backfill_id)
            cursor = await operator.state.execute(
                "SELECT max(position) FROM triggerkit.events WHERE backfill_id = %s", [backfill_id]
            )
            last = await cursor.fetchone()
        assert again == first
        assert last is not None
        assert last[0] <= end

    scene(scenario)


def test_rows_that_are_updated_while_they_are_read_arrive_whatever_the_actions(
    scene: Scene,
) -> None:
    """A chunk's row that was updated since is left to its update, which `actions` does not name."""

    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 1_000, actions=["insert", "delete"], batch_size=100)
        async with streaming(operator.settings, receiver):
            backfill_id = await operator.start()
            for version in range(1, 12):
                await execute(operator.settings, f"UPDATE items SET version = {version}")
            await operator.until_state(backfill_id, "completed")
            await receiver.until(
                lambda: len({k for r in receiver.requests for k in r.keys}) == 1_000
            )

    scene(scenario)


def updates(receiver: Receiver) -> list[tuple[str, int]]:
    return [
        (m["metadata"]["record_pks"][0], m["record"]["version"])
        for m in receiver.messages
        if m["action"] == "update"
    ]


def test_what_is_paused_while_no_stream_runs_is_closed_by_the_next_one(scene: Scene) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 3_000, batch_size=100)
        backfill_id = await operator.start(rows_per_s=1_000)
        async with streaming(operator.settings, receiver):
            await operator.until_read(backfill_id, 1)
        await operator.store.pause(backfill_id)
        assert (await operator.span(backfill_id))[1] is None
        async with streaming(operator.settings, receiver):
            await operator.until_closed(backfill_id)
        assert (await operator.one(backfill_id)).state == "paused"

    scene(scenario)


def test_a_failed_backfill_tells_why_and_can_be_resumed(scene: Scene) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 10)
        backfill_id = await operator.start(sort_by="version")
        await execute(operator.settings, "ALTER TABLE items RENAME version TO v")
        async with streaming(operator.settings, receiver):
            failed = await operator.until_state(backfill_id, "failed")
            assert "no column 'version'" in str(failed.error)
            await execute(operator.settings, "ALTER TABLE items RENAME v TO version")
            await operator.store.resume(backfill_id)
            done = await operator.until_state(backfill_id, "completed")
        assert (done.rows_read, done.error) == (10, None)

    scene(scenario)


@pytest.mark.parametrize("before", ["active", "paused", "failed"])
def test_the_backfill_of_a_table_that_is_not_followed_any_more_ends(
    scene: Scene, before: str
) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 3_000)
        await execute(operator.settings, "CREATE TABLE parts (id int PRIMARY KEY)")
        both = rows("items", "parts", start="end", batch_size=100)
        await declare(operator.settings, receiver, both)
        items, parts = [
            started.id
            for started in await operator.store.start(operator.source, "test", rows_per_s=1_000)
        ]
        async with streaming(operator.settings, receiver):
            await operator.until_read(items, 1)
            if before == "paused":
                await operator.store.pause(items)
            if before == "failed":
                await execute(operator.settings, "ALTER TABLE items RENAME id TO number")
                await operator.until_state(items, "failed")
            await declare(operator.settings, receiver, rows("parts", start="end"))
            ended = await operator.one(items)
            assert ended.state == "canceled"
            assert ended.finished_at is not None
            assert "test does not follow public.items any more" in str(ended.error)
            await operator.until_closed(items)
            assert (await operator.one(items)).rows_read < 3_000
            assert (await operator.until_state(parts, "completed")).error is None

    scene(scenario)


def test_rows_that_a_policy_hides_fail_the_backfill_instead_of_missing_in_it(
    scene: Scene, settings: Settings
) -> None:
    async def scenario(operator: Operator, receiver: Receiver) -> None:
        await prepared(operator, receiver, 10)
        role = f"limited_{settings.source_dsn.rpartition('/')[2][:12].replace('?', '_')}"
        await execute(
            settings,
            "ALTER TABLE items ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY few ON items USING (id < 5)",
            f"CREATE ROLE {role} LOGIN REPLICATION",
            f"GRANT USAGE ON SCHEMA public TO {role}",
            f"GRANT SELECT ON items TO {role}",
        )
        backfill_id = await operator.start()
        # Only what reads rows has the role; the rest may do what it always may.
        separator = "&" if "?" in settings.source_dsn else "?"
        limited = Settings.parse(
            {
                **settings.environment(),
                "DATABASE_URL": f"{settings.source_dsn}{separator}options=-c%20role%3D{role}",
                "TRIGGERKIT_STATE_URL": settings.state_dsn,
            }
        )
        try:
            async with streaming(limited, receiver):
                failed = await operator.until_state(backfill_id, "failed")
                assert f'ALTER ROLE "{role}" BYPASSRLS' in str(failed.error)
                await execute(settings, f"ALTER ROLE {role} BYPASSRLS")
                await operator.store.resume(backfill_id)
                assert (await operator.until_state(backfill_id, "completed")).rows_read == 10
        finally:
            await execute(settings, f"DROP OWNED BY {role}", f"DROP ROLE {role}")

    scene(scenario)

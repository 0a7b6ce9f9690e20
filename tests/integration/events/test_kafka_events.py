"""What a real Kafka gets: each change once, in the order of its key, with what it was."""

from __future__ import annotations

import asyncio

from tests.integration.events.written import TABLE, Topics, writing
from tests.integration.pipeline import execute
from triggerkit.settings import Settings


def test_each_change_is_an_event_in_the_order_of_its_key(kafka: Settings, written: Topics) -> None:
    async def scenario() -> None:
        async with writing(kafka, TABLE):
            await execute(
                kafka,
                "INSERT INTO posts VALUES (1, 'a'), (2, 'b')",
                "UPDATE posts SET title = 'c' WHERE id = 1",
                "DELETE FROM posts WHERE id = 2",
            )
            found = await written.until(4)
        first = [m for m in found if m.key == "1"]
        assert [m.event for m in first] == ["inserted", "updated"]
        assert first[1].value is not None
        assert first[1].value["data"] == {"id": 1, "title": "c"}
        assert first[1].value["changes"] == {"title": "a"}
        second = [m for m in found if m.key == "2"]
        assert [m.event for m in second] == ["inserted", "deleted"]
        assert second[1].value is not None
        assert second[1].value["data"] == {"id": 2, "title": "b"}
        assert {m.partition for m in first} == {first[0].partition}
        assert first[1].headers["action"] == "update"
        assert int(first[1].headers["lsn"]) > int(first[0].headers["lsn"])
        assert written.server.topics()[written.name()] == 8

    asyncio.run(scenario())


def test_a_changed_key_is_a_delete_and_an_insert_that_names_it(
    kafka: Settings, written: Topics
) -> None:
    async def scenario() -> None:
        async with writing(kafka, TABLE):
            await execute(
                kafka, "INSERT INTO posts VALUES (1, 'a')", "UPDATE posts SET id = 5 WHERE id = 1"
            )
            found = await written.until(3)
        assert [m.event for m in found if m.key == "1"] == ["inserted", "deleted"]
        (moved,) = [m for m in found if m.key == "5"]
        assert (moved.event, moved.headers["previous_key"]) == ("inserted", "1")

    asyncio.run(scenario())


def test_a_truncate_comes_after_what_is_before_it_and_before_the_rest(
    kafka: Settings, written: Topics
) -> None:
    async def scenario() -> None:
        async with writing(kafka, TABLE, partitions=1):
            rows = ", ".join(f"({number}, 'a')" for number in range(50))
            await execute(
                kafka,
                f"INSERT INTO posts VALUES {rows}",
                "TRUNCATE posts",
                f"INSERT INTO posts VALUES {rows}",
            )
            found = await written.until(101)
        events = [m.event for m in found]
        assert events == ["inserted"] * 50 + ["truncated"] + ["inserted"] * 50
        assert found[50].key is None
        assert found[50].value is not None
        assert "id" not in found[50].value

    asyncio.run(scenario())


def test_a_delete_is_followed_by_a_tombstone_where_that_is_wanted(
    kafka: Settings, written: Topics
) -> None:
    async def scenario() -> None:
        async with writing(kafka, TABLE, tombstones=True):
            await execute(kafka, "INSERT INTO posts VALUES (1, 'a')", "DELETE FROM posts")
            found = await written.until(3)
        assert [m.event for m in found] == ["inserted", "deleted", None]
        assert {m.key for m in found} == {"1"}

    asyncio.run(scenario())


def test_a_deleted_row_that_the_wal_does_not_carry_is_that_of_the_log(
    kafka: Settings, written: Topics
) -> None:
    async def scenario() -> None:
        async with writing(kafka, "CREATE TABLE posts (id bigint PRIMARY KEY, title text)"):
            await execute(kafka, "INSERT INTO posts VALUES (1, 'a'), (2, 'b')")
            await written.until(2)
            await execute(
                kafka,
                "DELETE FROM posts WHERE id = 1",
                "INSERT INTO posts VALUES (1, 'again'); DELETE FROM posts WHERE id IN (1, 2)",
            )
            found = await written.until(6)
        deleted = [(m.value or {})["data"] for m in found if m.event == "deleted" and m.key == "1"]
        assert deleted == [{"id": 1, "title": "a"}, {"id": 1, "title": "again"}]
        (other,) = [m for m in found if m.event == "deleted" and m.key == "2"]
        assert (other.value or {})["data"] == {"id": 2, "title": "b"}

    asyncio.run(scenario())


def test_composite_keys_and_other_schemas_have_topics_of_their_own(
    kafka: Settings, written: Topics
) -> None:
    async def scenario() -> None:
        setup = (
            "CREATE SCHEMA crm",
            "CREATE TABLE crm.members (team int, name text, PRIMARY KEY (team, name))",
        )
        async with writing(kafka, *setup, tables=["crm.members"]):
            await execute(kafka, "INSERT INTO crm.members VALUES (1, 'Ünï\"c')")
            (found,) = await written.until(1, "crm.members")
        assert found.key == '["1","Ünï\\"c"]'
        assert found.value is not None
        assert (found.value["id"], found.value["collection"]) == (["1", 'Ünï"c'], "crm.members")

    asyncio.run(scenario())


def test_rows_that_were_there_are_events_once_they_are_read(
    kafka: Settings, written: Topics
) -> None:
    async def scenario() -> None:
        async with writing(kafka, TABLE, "INSERT INTO posts VALUES (1, 'a')"):
            await execute(
                kafka,
                "INSERT INTO triggerkit.backfills (consumer_id, schema_name, table_name) "
                "SELECT id, 'public', 'posts' FROM triggerkit.consumers",
                "NOTIFY triggerkit_consumers",
            )
            (found,) = await written.until(1)
        assert (found.event, found.headers["action"]) == ("inserted", "read")

    asyncio.run(scenario())


def test_a_stop_leaves_nothing_to_be_written_twice(kafka: Settings, written: Topics) -> None:
    async def scenario() -> None:
        number = 0
        async with writing(kafka, TABLE):
            pass
        for _ in range(3):
            async with writing(kafka):
                for _ in range(20):
                    number += 1
                    await execute(kafka, f"INSERT INTO posts VALUES ({number}, 'a')")
        async with writing(kafka):
            found = await written.until(number)
        assert sorted(int(m.key or 0) for m in found) == list(range(1, number + 1))

    asyncio.run(scenario())

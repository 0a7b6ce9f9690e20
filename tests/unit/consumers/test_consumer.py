"""Which entries a consumer gets, and the message they become."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import orjson
import pytest

from triggerkit.change import RowChange, Transaction
from triggerkit.consumers.consumer import BackfillSpan, Consumer
from triggerkit.consumers.definition import ConsumerDefinition, TableName, changes, rows
from triggerkit.consumers.endpoints.model import SealedEndpoint
from triggerkit.consumers.render import IdempotencyKeys, Renderer, batch_body
from triggerkit.consumers.selection import WANTED, Selection
from triggerkit.errors import ConfigurationError
from triggerkit.log.entry import COPY_COLUMNS, Entry, Pending, copy_row, entry_of
from triggerkit.lsn import Lsn
from triggerkit.message import Envelope

TRANSACTION = Transaction(Lsn(123456790), "2026-10-28T21:39:21.127470Z", 777)


def consumer(definition: ConsumerDefinition, *spans: BackfillSpan) -> Consumer:
    return Consumer(
        id=7,
        name="posts",
        definition=definition,
        replay_epoch=2,
        state="active",
        database_id=1,
        database_name="shop",
        database_epoch=3,
        system_identifier="42",
        target=SealedEndpoint(1, "test", "http://127.0.0.1/push", None, None, "code", None),
        spans=spans,
    )


def entry(action: str = "insert", **given: object) -> Entry:
    change = RowChange("public", "posts", "insert", ("1",), {"id": 1, "title": "é"}, None)
    made = entry_of(4711, Pending(TRANSACTION, 1, change, 777))
    return made._replace(action=action, **given)  # type: ignore[arg-type]


def test_only_the_tables_it_follows_are_wanted() -> None:
    assert consumer(rows("posts")).wants(entry())
    assert not consumer(rows("other.posts")).wants(entry())


def test_only_the_actions_it_names_are_wanted() -> None:
    only_inserts = consumer(changes("posts", actions=["insert"]))
    assert only_inserts.wants(entry())
    assert not only_inserts.wants(entry("delete"))


def test_an_update_is_wanted_when_a_named_column_changed_or_may_have() -> None:
    by_title = consumer(rows("posts", when_changed=["title"]))
    assert by_title.wants(entry("update", changes=b'{"title":"old"}'))
    assert not by_title.wants(entry("update", changes=b'{"author":"old"}'))
    gone = {"changes": b'{"author":"old"}', "record": b'{"id":1,"author":"new"}'}
    assert not by_title.wants(entry("update", **gone, unchanged=("title",)))
    assert by_title.wants(entry("update", changes=b"{}")), "the old values are not known"
    assert by_title.wants(entry("delete"))


def test_an_update_is_wanted_where_a_named_column_is_no_more() -> None:
    """It was renamed or dropped: nobody can say that it did not change."""
    by_columns = consumer(rows("posts", when_changed=["title", "author"]))
    gone = {"changes": b'{"note":"old"}', "record": b'{"id":1,"note":{"title":1},"author":"a"}'}
    assert by_columns.wants(entry("update", **gone))


@pytest.mark.parametrize("action", ["insert", "update", "read"])
def test_a_message_without_a_column_of_its_group_is_parked(action: str) -> None:
    selection = Selection(consumer(rows("posts", group_by=["id", "author"])))
    verdict = selection.judge(entry(action))
    assert verdict.fault is not None
    assert verdict.fault.reason == (
        "the message has no column 'author' to group by: was it renamed or dropped? correct "
        "group_by, and run: triggerkit apply"
    )
    unknown = selection.judge(entry(action, unchanged=("author",)))
    assert unknown.fault is not None
    assert "its value is not known" in unknown.fault.reason
    assert selection.judge(entry(action, record=b'{"id":1,"author":null}')) == WANTED


def test_a_delete_has_the_columns_that_its_old_row_brings() -> None:
    selection = Selection(consumer(rows("posts", group_by=["author"])))
    assert selection.judge(entry("delete")) == WANTED


def test_an_update_of_nothing_is_not_wanted_and_its_changes_are_empty() -> None:
    assert not consumer(rows("posts", when_changed=["title"])).wants(entry("update"))
    plain = consumer(rows("posts"))
    assert plain.wants(entry("update"))
    assert orjson.loads(Renderer(plain).message(entry("update")))["changes"] == {}
    faulty = entry("update", record=None, fault="too large")
    assert consumer(rows("posts", when_changed=["title"])).wants(faulty)


@pytest.mark.parametrize("action", ["insert", "update"])
def test_a_row_that_is_written_while_its_table_is_read_is_wanted_whatever_the_actions(
    action: str,
) -> None:
    """The row of the chunk gives way to this change, which is then its only bearer."""
    reading = BackfillSpan(("public", "posts"), 4000, None)
    read = BackfillSpan(("public", "posts"), 4000, 4700)
    definition = rows("posts", actions=["delete", "read"])
    assert consumer(definition, reading).wants(entry(action))
    assert not consumer(definition, read).wants(entry(action))
    assert not consumer(rows("posts", actions=["insert", "read"]), reading).wants(entry("delete"))


def test_an_unrelated_update_is_wanted_while_its_table_is_read() -> None:
    reading = BackfillSpan(("public", "posts"), 4000, None)
    read = BackfillSpan(("public", "posts"), 4000, 4700)
    unrelated = entry("update", changes=b'{"author":"old"}')
    assert consumer(rows("posts", when_changed=["title"]), reading).wants(unrelated)
    assert not consumer(rows("posts", when_changed=["title"]), read).wants(unrelated)


def test_rows_read_for_another_consumer_are_not_wanted() -> None:
    assert consumer(rows("posts")).wants(entry("read", consumer_id=7))
    assert not consumer(rows("posts")).wants(entry("read", consumer_id=8))


def test_a_message_has_the_shape_of_the_contract() -> None:
    message = orjson.loads(Renderer(consumer(rows("posts"))).message(entry()))
    assert message == {
        "record": {"id": 1, "title": "é"},
        "changes": None,
        "action": "insert",
        "metadata": {
            "table_schema": "public",
            "table_name": "posts",
            "record_pks": ["1"],
            "commit_timestamp": "2026-10-28T21:39:21.127470Z",
            "commit_lsn": 123456790,
            "commit_idx": 1,
            "idempotency_key": "7.2.42.3.123456790.1",
            "position": 4711,
            "xid": 777,
            "database_name": "shop",
            "database": {"id": "1", "name": "shop", "epoch": 3},
            "consumer": {"id": "7", "name": "posts"},
            "transaction_annotations": None,
        },
    }
    assert msgspec.convert(message, Envelope).metadata.position == 4711


def test_a_row_of_a_backfill_is_told_apart_by_backfill_and_key() -> None:
    one = consumer(rows("posts"))
    read = entry("read", backfill_id=5, consumer_id=7)
    assert IdempotencyKeys(one).of(read) == '7.2.b5.public.posts:["1"]'
    assert IdempotencyKeys(replace(one, replay_epoch=3)).of(read) != IdempotencyKeys(one).of(read)


def test_a_single_message_is_sent_bare_and_several_under_data() -> None:
    assert batch_body([b'{"a":1}'], single=True) == b'{"a":1}'
    assert batch_body([b'{"a":1}', b'{"b":2}'], single=False) == b'{"data":[{"a":1},{"b":2}]}'


def test_a_log_row_survives_copy_whatever_its_values_hold() -> None:
    hostile = 'tab\t newline\n backslash\\ quote" \\N'
    change = RowChange("pub\tlic", "po\\sts", "insert", (hostile,), {"t": hostile}, None, ("a,b",))
    row = b"".join(copy_row(1, entry_of(1, Pending(TRANSACTION, 0, change))))
    assert row.count(b"\t") == COPY_COLUMNS.count(",")
    assert row.count(b"\n") == 1


@pytest.mark.parametrize("name", ["", ".posts", "public."])
def test_a_table_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="not a table"):
        TableName.parse(name)


def test_a_definition_is_the_same_after_it_was_stored() -> None:
    made = rows("posts", sort_by="updated_at", when_changed=["title"], batch_size=10, name="x")
    assert ConsumerDefinition.from_json(orjson.loads(orjson.dumps(made.as_json()))) == made


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 1001}, "batch_size"),
        ({"start": "middle"}, "start"),
        ({"actions": ["upsert"]}, "upsert"),
        ({"name": "a b"}, "name"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        rows("posts", **options)  # type: ignore[arg-type]

"""What a batch of changes asks for: of several changes of one post only the last counts."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from app.post_plan import Plan, plan, position_of
from tasks.create_embedding_for_post import Post
from triggerkit import UNCHANGED, Change
from triggerkit.change import Action
from triggerkit.message import Metadata, Ref
from triggerkit.testing import fake_change


def change(
    action: Action,
    post_id: int = 1,
    title: str | None = None,
    at: int = 1,
    changes: dict[str, Any] | None = None,
) -> Change[Post]:
    record: Any = None
    if action != "truncate":
        record = Post.model_construct(id=post_id, title=title, body=None)
    return fake_change(
        record, action=action, changes=changes, commit_lsn=at, commit_idx=2, xid=at, database=None
    )


def texts(planned: Plan[Post]) -> dict[int, str]:
    return {post_id: draft.text for post_id, draft in planned.drafts.items()}


def test_inserts_updates_and_reads_ask_for_their_text() -> None:
    planned = plan([change("insert", 1, "a"), change("update", 2, "b"), change("read", 3, "c")])
    assert texts(planned) == {1: "a", 2: "b", 3: "c"}
    assert planned.drafts[2].source.position == (0, 1, 2)
    assert planned.drafts[2].source.xid == 1


def test_deletes_and_posts_without_text_ask_for_removal() -> None:
    planned = plan([change("delete", 1), change("update", 2, ""), change("insert", 3, None)])
    assert planned.removed.keys() == {1, 2, 3}
    assert planned.drafts == {}


def test_the_last_change_of_a_post_counts() -> None:
    planned = plan([change("insert", 1, "a"), change("update", 1, "b", at=2)])
    assert texts(planned) == {1: "b"}
    planned = plan([change("insert", 1, "a"), change("delete", 1, at=2)])
    assert texts(planned) == {}
    assert planned.removed.keys() == {1}
    planned = plan([change("delete", 1), change("insert", 1, "again", at=2)])
    assert texts(planned) == {1: "again"}
    assert planned.removed == {}


def test_a_truncate_voids_what_came_before_it() -> None:
    planned = plan(
        [change("insert", 1, "a"), change("truncate", at=5), change("insert", 2, "b", at=6)]
    )
    assert planned.cleared == (0, 5, 2)
    assert texts(planned) == {2: "b"}
    assert planned.changes.keys() == {2}


def test_ids_swapped_in_one_transaction_keep_their_texts() -> None:
    planned = plan(
        [
            change("update", 99, "one", changes={"id": 1}),
            change("update", 1, "two", changes={"id": 2}),
            change("update", 2, "one", changes={"id": 99}),
        ]
    )
    assert texts(planned) == {1: "two", 2: "one"}
    assert planned.removed.keys() == {99}


def test_an_unknown_text_is_asked_for_until_it_is_given() -> None:
    unknown: Any = UNCHANGED
    planned = plan([change("update", 1, unknown), change("update", 2, unknown)])
    assert planned.unknown.keys() == {1, 2}
    planned.complete({1: "read"})
    assert texts(planned) == {1: "read"}
    assert planned.unknown.keys() == {2}


def test_what_a_sender_does_not_tell_of_a_position_counts_as_zero() -> None:
    bare = Metadata(table_schema="public", table_name="posts")
    post = Post(id=1)
    assert position_of(Change(post, None, "insert", bare)) == (0, 0, 0)
    named = structs.replace(bare, database=Ref(epoch=3), commit_lsn=7)
    assert position_of(Change(post, None, "insert", named)) == (3, 7, 0)


@given(
    st.lists(
        st.builds(
            change,
            st.sampled_from(["insert", "update", "delete", "read", "truncate"]),
            st.integers(1, 4),
            st.sampled_from([None, "", "a", "b", UNCHANGED]),
        )
    )
)
def test_every_post_of_a_batch_is_planned_exactly_once(batch: list[Change[Post]]) -> None:
    planned = plan(batch)
    groups = [*planned.drafts, *planned.removed, *planned.unknown]
    assert sorted(groups) == sorted(planned.changes)
    for post_id, last in planned.changes.items():
        assert last is [c for c in batch if c.record and c.record.id == post_id][-1]

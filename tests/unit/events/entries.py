"""Entries of the log to make events of."""

from __future__ import annotations

from typing import Any

from triggerkit.events.topics import Topic
from triggerkit.log.entry import Entry

POSTS = Topic("triggerkit.blog.posts", "blog", "public", "posts", database_id=1)


def entry(**values: Any) -> Entry:
    """An insert into the posts, or what `values` make of it."""
    given: dict[str, Any] = {
        "position": 4711, "partition": 3, "schema": "public", "table": "posts", "key": '["1"]',
        "action": "insert", "commit_lsn": 123456790, "commit_idx": 1,
        "commit_at": "2026-10-28T21:39:21.127470Z", "xid": 751, "record": b'{"id":1,"title":"a"}',
        "changes": None, "unchanged": (), **values,
    }  # fmt: skip
    return Entry(**given)

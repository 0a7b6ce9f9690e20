"""The reference task while its API is busy: what it asks, what it says, and what is left of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import psycopg

from tasks.create_embedding_for_post import create_embedding_for_post
from tests.integration.app.openai_server import Failure, OpenAIServer
from tests.integration.run_state import RunState
from tests.integration.worker_thread import working
from triggerkit.supervisor.status import read_health

BATCH = 100


@dataclass
class Busy:
    """What was seen: requests and the seconds of the busy time, and how soon the status told."""

    requests: int
    seconds: float
    told_after_s: float
    told: str


def live_through(
    state: RunState,
    database: psycopg.Connection[Any],
    api: OpenAIServer,
    *,
    posts: int,
    busy_s: float,
    failure: Failure | None = None,
) -> Busy:
    """Have `posts` embedded, in batches, while the API is busy for so long, and then is not."""
    database.execute(
        "INSERT INTO posts (id, title) SELECT n, 'text ' || n FROM generate_series(1, %s) n",
        [posts],
    )
    api.busy = Failure(429, "Rate limit reached") if failure is None else failure
    runs = [
        create_embedding_for_post.new_run({"data": [_message(n) for n in part]})
        for first in range(1, posts + 1, BATCH)
        for part in [range(first, min(first + BATCH, posts + 1))]
    ]
    state.accept(*runs)
    with working(state, create_embedding_for_post):
        state.wait_for(lambda: api.requests)
        began = time.monotonic()
        waiting = state.wait_for(lambda: asyncio.run(read_health(state.settings))["waiting"])
        told_after_s = time.monotonic() - began
        state.wait_for(lambda: time.monotonic() > began + busy_s, busy_s + 30)
        seen = Busy(len(api.requests), busy_s, told_after_s, waiting[0]["problems"][0]["detail"])
        api.busy = None
        state.wait_for_status("completed", *(run.id for run in runs))
    return seen


def _message(post_id: int) -> dict[str, Any]:
    return {
        "record": {"id": post_id, "title": f"text {post_id}"},
        "changes": None,
        "action": "insert",
        "metadata": {"table_schema": "public", "table_name": "posts", "record_pks": [str(post_id)]},
    }

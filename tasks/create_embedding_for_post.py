"""Keeps `post_embeddings` in step with `posts`: every post with text has its embedding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psycopg
from pydantic import BaseModel

from app.errors import EmbeddingsAwayError
from app.post_embeddings import OUT_OF_STEP, Draft, Standing
from app.post_plan import Plan, plan
from app.resources import resources
from triggerkit import BatchResult, Change, ItemFailure, Retry, rows, task
from triggerkit.errors import CannotConnect, ConfigurationError

if TYPE_CHECKING:
    from app.embeddings import Embedded


class Post(BaseModel):
    """The columns of `posts` that count here."""

    id: int
    title: str | None = None
    body: str | None = None


class PostNotReadyError(Exception):
    """The post cannot be worked on yet; its message says why."""


#: No post is to blame for these: all runs wait until they are over.
AWAY = (EmbeddingsAwayError, psycopg.OperationalError, CannotConnect, ConfigurationError)

NOT_READY = {
    "locked": "another transaction holds the post",
    "hidden": "the change was captured before it can be seen in the database",
}


@task(
    retry=Retry(max_attempts=5, wait_for=AWAY),
    queue="embeddings",
    batch_size=256,
    prepare=resources,
    verify=OUT_OF_STEP,
    on=rows(
        "public.posts", sort_by="updated_at", start="beginning", when_changed=["title", "body"]
    ),
)
async def create_embedding_for_post(batch: list[Change[Post]]) -> BatchResult:
    """Embed the posts whose text is new, and remove the embeddings of those without text.

    Safe to repeat and safe to come late: a text that is embedded already costs nothing, and an
    older change never overwrites a newer one.
    """
    own = await resources()
    planned = plan(batch)

    async with own.post_embeddings() as table:
        planned.complete(await table.read_texts(planned.unknown.values()))
        removed = await table.clear(planned.cleared) + await table.remove(planned.removed.values())
        standing = await table.settle(planned.drafts.values())

    wanted = [draft for draft in planned.drafts.values() if standing[draft.post_id] == "wanted"]
    answer = await own.embedder.embed({draft.content_hash: draft.text for draft in wanted})

    if answer.vectors:
        async with own.post_embeddings() as table:
            ready = [draft for draft in wanted if draft.content_hash in answer.vectors]
            standing |= await table.write(ready, answer.vectors)
    if answer.interrupted is not None:
        raise answer.interrupted

    failed = [*_without_vector(planned, wanted, answer), *_not_ready(planned, standing)]
    counts = Counter(standing.values())
    output = {how: counts[how] for how in ("embedded", "unchanged", "superseded", "gone")}
    output |= {"removed": removed, "failed": len(failed), "inputs": answer.inputs}
    cut = Counter(by for name, by in answer.cut.items() if name in answer.vectors)
    return BatchResult(output={**output, "cut": dict(cut)}, failed=tuple(failed))


def _without_vector(
    planned: Plan[Post], wanted: list[Draft], answer: Embedded
) -> Iterator[ItemFailure]:
    """Name the posts whose text the API will never take, and those it left out of its answer."""
    for draft in wanted:
        post, name = planned.changes[draft.post_id], draft.content_hash
        if name in answer.refused:
            yield ItemFailure(post, answer.refused[name], permanent=True)
        elif name in answer.unanswered:
            yield ItemFailure(post, answer.unanswered[name])


def _not_ready(planned: Plan[Post], standing: dict[int, Standing]) -> Iterator[ItemFailure]:
    """The posts to look at again; the back-off outlasts a transaction of several seconds."""
    waiting = {id_: how for id_, how in standing.items() if how in ("locked", "hidden")}
    for post_id, how in (waiting | dict.fromkeys(planned.unknown, "hidden")).items():
        error = PostNotReadyError(NOT_READY[how])
        yield ItemFailure(planned.changes[post_id], error)

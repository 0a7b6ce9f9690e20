"""The table `post_embeddings`: every statement on it, and what each guards against.

A row carries the place in the source's WAL of the change it was made from, so that a run which
comes late never undoes the work of a newer change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pgvector import Vector
from psycopg import AsyncConnection

from app.post_text import HAS_TEXT, embedded_text

#: How a post stands. Wanted: its text is to be embedded. Nothing is to do when it is embedded
#: already (unchanged), when a newer one is (superseded), and when the post is gone or lost its
#: text. To be tried again: another transaction holds the post (locked), or its change was decoded
#: from the WAL before any SELECT can see it (hidden).
Standing = Literal["wanted", "embedded", "unchanged", "superseded", "gone", "locked", "hidden"]


class Position(NamedTuple):
    """The place of a change in its source's WAL. Epochs count the slots, since LSNs start anew."""

    epoch: int
    lsn: int
    idx: int


@dataclass(frozen=True, slots=True)
class Source:
    """The change of a post that asks for work: its place, and its transaction when known."""

    post_id: int
    position: Position
    xid: int | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A post's text that shall have an embedding."""

    source: Source
    text: str
    content_hash: str

    @property
    def post_id(self) -> int:
        return self.source.post_id


# Remove the embeddings of deleted posts and of posts without text.
REMOVE = """
DELETE FROM post_embeddings AS e
USING unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]) AS i(post_id, epoch, lsn, idx)
WHERE e.post_id = i.post_id
  AND (e.source_epoch, e.source_lsn, e.source_idx) <= (i.epoch, i.lsn, i.idx)
"""

# Remove what was embedded before the posts were truncated.
CLEAR = """
DELETE FROM post_embeddings
WHERE (source_epoch, source_lsn, source_idx) <= (%s::bigint, %s::bigint, %s::bigint)
"""

# The present texts of posts whose change does not carry them. A row counts once the change is
# visible: before, it may still be an older one.
READ_TEXTS = """
SELECT i.post_id, p.title, p.body,
       coalesce(txid_visible_in_snapshot(i.xid, txid_current_snapshot()), true)
FROM unnest(%s::bigint[], %s::bigint[]) AS i(post_id, xid)
LEFT JOIN posts AS p ON p.id = i.post_id
"""

# Give unchanged texts their newer position, and tell how each post stands: one statement, so that
# nothing comes between the look and the write.
SETTLE = f"""
WITH incoming AS (
    SELECT * FROM unnest(
        %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[]
    ) AS i(post_id, epoch, lsn, idx, xid, content_hash)
), unchanged AS (
    UPDATE post_embeddings AS e
    SET source_epoch = i.epoch, source_lsn = i.lsn, source_idx = i.idx
    FROM incoming AS i
    WHERE e.post_id = i.post_id AND e.content_hash = i.content_hash AND e.model = %b
      AND (e.source_epoch, e.source_lsn, e.source_idx) <= (i.epoch, i.lsn, i.idx)
    RETURNING e.post_id
)
SELECT i.post_id, CASE
    WHEN u.post_id IS NOT NULL THEN 'unchanged'
    WHEN (e.source_epoch, e.source_lsn, e.source_idx) > (i.epoch, i.lsn, i.idx) THEN 'superseded'
    WHEN {HAS_TEXT} THEN 'wanted'
    WHEN NOT txid_visible_in_snapshot(i.xid, txid_current_snapshot()) THEN 'hidden'
    ELSE 'gone'
END
FROM incoming AS i
LEFT JOIN unchanged AS u ON u.post_id = i.post_id
LEFT JOIN post_embeddings AS e ON e.post_id = i.post_id
LEFT JOIN posts AS p ON p.id = i.post_id
"""  # noqa: S608 - of a constant

# Write embeddings of posts that are there and have text. Locking them keeps a DELETE waiting until
# this is committed, so that no embedding outlives its post; skipping those that are locked keeps
# this from waiting on the application, and so from any deadlock with it.
WRITE = f"""
WITH present AS MATERIALIZED (
    SELECT id FROM posts AS p
    WHERE id = ANY(%s::bigint[]) AND {HAS_TEXT}
    ORDER BY id FOR KEY SHARE SKIP LOCKED
)
INSERT INTO post_embeddings AS e (
    post_id, source_epoch, source_lsn, source_idx, content_hash, embedding, model
)
SELECT i.*, %b
FROM unnest(
    %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %b::vector[]
) AS i(post_id, epoch, lsn, idx, content_hash, embedding)
JOIN present ON present.id = i.post_id
ORDER BY i.post_id
ON CONFLICT (post_id) DO UPDATE SET
    embedding = excluded.embedding,
    content_hash = excluded.content_hash,
    model = excluded.model,
    source_epoch = excluded.source_epoch,
    source_lsn = excluded.source_lsn,
    source_idx = excluded.source_idx,
    updated_at = now()
WHERE (e.source_epoch, e.source_lsn, e.source_idx)
   <= (excluded.source_epoch, excluded.source_lsn, excluded.source_idx)
RETURNING e.post_id
"""  # noqa: S608 - of a constant


# Posts whose embedding is missing, or of another text than the present one, and embeddings of posts
# that are gone or have no text; and the posts without text, which are to have none: for
# `triggerkit verify`.
OUT_OF_STEP = f"""
SELECT coalesce(p.id, e.post_id), CASE
    WHEN e.post_id IS NULL THEN 'missing' WHEN p.id IS NULL THEN 'orphaned' ELSE 'stale'
END
FROM (
    SELECT p.id, encode(sha256(convert_to(
        concat_ws(E'\\n\\n', nullif(p.title, ''), nullif(p.body, '')), 'UTF8')), 'hex'
    ) AS content_hash
    FROM public.posts AS p WHERE {HAS_TEXT}
) AS p
FULL JOIN public.post_embeddings AS e ON e.post_id = p.id
WHERE p.content_hash IS DISTINCT FROM e.content_hash
UNION ALL
SELECT p.id, 'empty' FROM public.posts AS p
WHERE NOT ({HAS_TEXT}) AND NOT EXISTS (
    SELECT FROM public.post_embeddings AS e WHERE e.post_id = p.id)
"""  # noqa: S608 - of a constant


class PostEmbeddings:
    """The embeddings of one model, over a connection that commits each statement."""

    def __init__(self, connection: AsyncConnection[Any], model: str) -> None:
        self._connection = connection
        self._model = model

    async def remove(self, sources: Collection[Source]) -> int:
        """Remove the posts' embeddings that are not newer; returns how many there were."""
        if not sources:
            return 0
        return (await self._connection.execute(REMOVE, _columns(sources))).rowcount

    async def clear(self, position: Position | None) -> int:
        """Remove all embeddings that are not newer; returns how many there were."""
        if position is None:
            return 0
        return (await self._connection.execute(CLEAR, position)).rowcount

    async def read_texts(self, sources: Collection[Source]) -> dict[int, str]:
        """The posts' texts as they are now, without those whose change is still hidden."""
        if not sources:
            return {}
        ids, xids = _array(s.post_id for s in sources), _array(s.xid for s in sources)
        rows = await (await self._connection.execute(READ_TEXTS, (ids, xids))).fetchall()
        return {post_id: embedded_text(title, body) for post_id, title, body, seen in rows if seen}

    async def settle(self, drafts: Collection[Draft]) -> dict[int, Standing]:
        """Move the unchanged ones on to their newer position; say how every post stands."""
        if not drafts:
            return {}
        sources = [draft.source for draft in drafts]
        xids, hashes = _array(s.xid for s in sources), _array(d.content_hash for d in drafts)
        cursor = await self._connection.execute(
            SETTLE, (*_columns(sources), xids, hashes, self._model)
        )
        return dict(await cursor.fetchall())

    async def write(
        self, drafts: Collection[Draft], vectors: Mapping[str, Vector]
    ) -> dict[int, Standing]:
        """Store each draft's vector, found by its hash; say how every post stands then."""
        if not drafts:
            return {}
        columns = _columns([draft.source for draft in drafts])
        hashes = _array(draft.content_hash for draft in drafts)
        embeddings = [vectors[draft.content_hash] for draft in drafts]
        cursor = await self._connection.execute(
            WRITE, (columns[0], self._model, *columns, hashes, embeddings)
        )
        written: dict[int, Standing] = {
            post_id: "embedded" for (post_id,) in await cursor.fetchall()
        }
        left = await self.settle([d for d in drafts if d.post_id not in written])
        for post_id, standing in left.items():
            # There, with text, and not newer: only a lock can have kept the row from being written.
            written[post_id] = "locked" if standing == "wanted" else standing
        return written


def _columns(sources: Iterable[Source]) -> list[str]:
    """Post ids, epochs, LSNs and indexes, each as an array parameter."""
    rows = [(source.post_id, *source.position) for source in sources]
    return [_array(column) for column in zip(*rows, strict=True)]


def _array(values: Iterable[int | str | None]) -> str:
    """The text of an array of numbers or hashes: psycopg takes longer for it, value by value."""
    listed = ",".join(["NULL" if value is None else str(value) for value in values])
    return f"{{{listed}}}"

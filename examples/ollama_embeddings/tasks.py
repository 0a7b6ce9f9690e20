"""Keeps `note_embeddings` in step with `notes`, by the embeddings of an Ollama server."""

import os
from functools import cache

from psycopg import Connection
from psycopg_pool import ConnectionPool
from pydantic import BaseModel

from ollama import OllamaAwayError, embed
from triggerkit import Change, Retry, rows, task

#: The note is locked, so that its embedding does not outlive it; a newer embedding stays.
UPSERT = """
INSERT INTO note_embeddings AS e (note_id, embedding, position)
SELECT id, %s::vector, %s FROM notes WHERE id = %s FOR KEY SHARE
ON CONFLICT (note_id) DO UPDATE
SET embedding = excluded.embedding, position = excluded.position
WHERE e.position <= excluded.position
"""


class Note(BaseModel):
    """A row of `notes`."""

    id: int
    body: str = ""


@cache
def pool() -> ConnectionPool:
    """The task's own connections, opened at their first use: worker processes are forked."""
    return ConnectionPool(os.environ["DATABASE_URL"], min_size=1, max_size=8, open=True)


@task(
    on=rows("public.notes", when_changed=["body"]),
    batch_size=64,
    retry=Retry(max_attempts=5, wait_for=(OllamaAwayError,)),
)
def embed_notes(batch: list[Change[Note]]) -> int:
    """Embed a batch by one request: of several changes of a note, the last one counts."""
    newest = {change.record.id: change for change in batch if change.action != "truncate"}
    gone = [note_id for note_id, change in newest.items() if change.action == "delete"]
    present = [change for change in newest.values() if change.action != "delete"]
    vectors = embed([change.record.body for change in present]) if present else []
    with pool().connection() as connection:
        for change in batch:
            if change.action == "truncate":
                remove_before(connection, change.metadata.position or 0)
        connection.execute("DELETE FROM note_embeddings WHERE note_id = ANY (%s)", [gone])
        for change, vector in zip(present, vectors, strict=True):
            connection.execute(
                UPSERT, [str(vector), change.metadata.position or 0, change.record.id]
            )
    return len(vectors)


def remove_before(connection: Connection, position: int) -> None:
    """Remove every embedding of a note from before `position`."""
    connection.execute("DELETE FROM note_embeddings WHERE position < %s", [position])

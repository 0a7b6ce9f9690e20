"""Makes the tables: `python schema.py`, which `triggerkit dev` runs on its own database."""

import os

import psycopg

STATEMENTS = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE IF NOT EXISTS public.notes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    body text NOT NULL,
    pinned bool NOT NULL DEFAULT false
);
-- Every message then has the whole text, and `when_changed` can compare.
ALTER TABLE public.notes REPLICA IDENTITY FULL;

CREATE TABLE IF NOT EXISTS public.note_embeddings (
    note_id bigint PRIMARY KEY,
    embedding vector NOT NULL,
    position bigint NOT NULL
);
"""

if __name__ == "__main__":
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute(STATEMENTS)

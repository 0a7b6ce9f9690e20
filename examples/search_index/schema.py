"""Makes the tables: `python schema.py`, which `triggerkit dev` runs on its own database."""

import os

import psycopg

STATEMENTS = """
CREATE TABLE IF NOT EXISTS public.articles (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title text NOT NULL,
    body text NOT NULL
);
-- Every message then has all columns, and `when_changed` can compare.
ALTER TABLE public.articles REPLICA IDENTITY FULL;
"""

if __name__ == "__main__":
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute(STATEMENTS)

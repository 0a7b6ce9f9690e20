"""Makes the tables: `python schema.py`, which `triggerkit dev` runs on its own database."""

import os

import psycopg

STATEMENTS = """
CREATE TABLE IF NOT EXISTS public.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recipient text NOT NULL,
    subject text NOT NULL,
    body text NOT NULL
);
"""

if __name__ == "__main__":
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute(STATEMENTS)

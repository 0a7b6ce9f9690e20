"""Makes the tables: `python schema.py`, which `triggerkit dev` runs on its own database."""

import os

import psycopg

STATEMENTS = """
CREATE TABLE IF NOT EXISTS public.customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL
);
-- Every message then has all columns, large ones that did not change included.
ALTER TABLE public.customers REPLICA IDENTITY FULL;
"""

if __name__ == "__main__":
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute(STATEMENTS)

"""Makes the tables: `python schema.py`, which `triggerkit dev` runs on its own database."""

import os

import psycopg

STATEMENTS = """
CREATE TABLE IF NOT EXISTS public.accounts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner text NOT NULL,
    balance_cents bigint NOT NULL DEFAULT 0
);
-- Old values are then in the messages.
ALTER TABLE public.accounts REPLICA IDENTITY FULL;

CREATE TABLE IF NOT EXISTS public.audit_trail (
    position bigint PRIMARY KEY,
    committed_at timestamptz,
    actor text,
    action text NOT NULL,
    table_name text NOT NULL,
    row_key text[] NOT NULL,
    row_after jsonb,
    old_values jsonb
);
"""

if __name__ == "__main__":
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute(STATEMENTS)

-- What a parked message is: its key of idempotency and its row, beside its body, out of which nothing has
-- to be read. NULL for what an earlier version parked.
ALTER TABLE parked
    ADD COLUMN idempotency_key text,
    ADD COLUMN schema_name text,
    ADD COLUMN table_name text,
    ADD COLUMN row_key text;

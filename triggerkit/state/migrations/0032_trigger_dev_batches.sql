-- Batches that Trigger.dev's SDK announced: the items of each come in a request of their own, perhaps
-- to another process. runs are those that were made of the items, in order; null until they came.
CREATE TABLE trigger_dev_batches (
    id               text COLLATE "C" PRIMARY KEY,
    run_count        int NOT NULL,
    idempotency_key  text UNIQUE,
    runs             text[],
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    sealed_at        timestamptz
);

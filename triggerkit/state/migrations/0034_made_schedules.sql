-- Schedules that clients made, beside those that code declares: `apply` leaves them alone. A second one
-- of a deduplication key changes the first; external_id is what their runs are told of whom they are for.
ALTER TABLE schedules
    ADD COLUMN managed_by text NOT NULL DEFAULT 'code' CHECK (managed_by IN ('code', 'api')),
    ADD COLUMN deduplication_key text UNIQUE,
    ADD COLUMN external_id text;

-- How many runs of a run's key may go on beside each other, itself included, as its task says. Rows, and
-- what else is kept in order, have 1.
ALTER TABLE runs ADD COLUMN concurrency_per_key int NOT NULL DEFAULT 1;

-- The migration that a process has to know to work with this schema. Later ones only add, so that processes of the
-- release before go on beside those of the new one; one that takes something away raises this to its own number.
ALTER TABLE installation ADD COLUMN needs int NOT NULL DEFAULT 0;

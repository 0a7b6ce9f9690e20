-- Where the log of a database was begun. What it has is not moved: a process that is told of another place
-- is refused.
ALTER TABLE databases ADD COLUMN log text NOT NULL DEFAULT 'postgres' CHECK (log IN ('postgres', 'kafka'));

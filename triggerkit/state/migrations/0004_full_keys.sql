-- The keys of a run that are longer than an index takes, as they were given, by the name of their column:
-- the column itself has their SHA-256.
ALTER TABLE runs ADD COLUMN full_keys jsonb;

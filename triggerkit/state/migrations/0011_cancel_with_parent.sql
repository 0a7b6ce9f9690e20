-- Runs that are canceled when the run that triggered them is.
ALTER TABLE runs ADD COLUMN cancel_with_parent boolean NOT NULL DEFAULT false;

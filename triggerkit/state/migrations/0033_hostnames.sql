-- The host that the source was reached by, which messages carry.
ALTER TABLE databases ADD COLUMN hostname text;

-- Changes whose large values nobody knows: a backfill reads their rows again.
CREATE INDEX events_left_out ON events (database_id, position) WHERE cardinality(unchanged) > 0;

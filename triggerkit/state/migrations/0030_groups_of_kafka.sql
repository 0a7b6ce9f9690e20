-- Groups over Kafka have its offsets, those over the log the log's positions: a name is a group of its
-- own in each. source is '' for the log, else the id of the Kafka cluster.
ALTER TABLE event_groups ADD COLUMN source text NOT NULL DEFAULT '';
ALTER TABLE event_groups DROP CONSTRAINT event_groups_name_key;
ALTER TABLE event_groups ADD UNIQUE (name, source);

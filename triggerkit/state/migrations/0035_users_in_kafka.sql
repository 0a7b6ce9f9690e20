-- Whether the user of this name in Kafka was made with this one, and is to go with it: another's stays.
ALTER TABLE event_users ADD COLUMN in_kafka boolean NOT NULL DEFAULT true;
ALTER TABLE event_users ALTER COLUMN in_kafka SET DEFAULT false;

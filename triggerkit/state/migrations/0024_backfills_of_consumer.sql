-- What was backfilled of a consumer is looked up for each of them, where thousands are listed.
CREATE INDEX backfills_consumer
    ON backfills (consumer_id, schema_name, table_name, id);

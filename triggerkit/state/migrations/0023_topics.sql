-- The topics of tables whose changes are events. label stands for the database in the name; one that is
-- not enabled is not declared any more. partitions, replication_factor and tombstones are for Kafka.
-- carries_old_rows: a delete in the WAL brings the whole row; else the log's last version stands in.
CREATE TABLE topics (
    name                text PRIMARY KEY,
    label               text NOT NULL,
    database_id         int NOT NULL REFERENCES databases,
    schema_name         text NOT NULL,
    table_name          text NOT NULL,
    enabled             boolean NOT NULL DEFAULT true,
    partitions          int NOT NULL DEFAULT 8,
    replication_factor  int,
    tombstones          boolean NOT NULL DEFAULT false,
    carries_old_rows    boolean NOT NULL DEFAULT true,
    created_at          timestamptz NOT NULL DEFAULT now()
);

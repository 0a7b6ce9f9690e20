-- What was last seen of each relation, and from where on its entries may be the source of a value that an
-- update leaves out: from a position of the log on, and from a place of the source's WAL on. columns and
-- key are as messages have them; facts say how it was published and in which files its rows were. One
-- relation at most has a name.
CREATE TABLE sightings (
    database_id     int NOT NULL REFERENCES databases ON DELETE CASCADE,
    oid             bigint NOT NULL,
    schema_name     text NOT NULL,
    table_name      text NOT NULL,
    columns         jsonb NOT NULL,
    key             jsonb NOT NULL,
    facts           jsonb NOT NULL,
    since_position  bigint NOT NULL,
    since_lsn       bigint NOT NULL,
    PRIMARY KEY (database_id, oid)
);

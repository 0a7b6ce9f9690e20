-- The last version of each table that the stream announced, or that apply found: its columns as arrays
-- of number, name and the type's OID, and the numbers of those of its primary key, in the key's order.
-- What is in the WAL may be of a version that the source's catalog does not know any more.
CREATE TABLE relations (
    database_id     int NOT NULL REFERENCES databases ON DELETE CASCADE,
    oid             bigint NOT NULL,
    columns         jsonb NOT NULL,
    key             int[] NOT NULL,
    is_partitioned  boolean NOT NULL,
    PRIMARY KEY (database_id, oid)
);

-- Changes that a consumer never gets: of one table, or of all where the table's name is empty. They lie
-- between two places of the source's WAL, where those are known. It goes on until ended_at; a whole
-- backfill that was started later closes it, or somebody who accepts it. There is one open gap of a kind.
CREATE TABLE gaps (
    id            int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer_id   int NOT NULL REFERENCES consumers ON DELETE CASCADE,
    kind          text NOT NULL CHECK (kind IN ('slot', 'retention', 'table', 'key')),
    schema_name   text NOT NULL DEFAULT '',
    table_name    text NOT NULL DEFAULT '',
    relation_oid  bigint,
    from_lsn      bigint,
    to_lsn        bigint,
    cause         text NOT NULL,
    found_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at      timestamptz,
    closed_at     timestamptz,
    closed_by     text
);
CREATE UNIQUE INDEX gaps_open ON gaps (consumer_id, kind, schema_name, table_name)
    WHERE closed_at IS NULL;
INSERT INTO gaps (consumer_id, kind, cause, found_at, ended_at)
SELECT id, CASE WHEN gap ~ '^positions ' THEN 'retention' ELSE 'slot' END, gap, gap_at, gap_at
FROM consumers WHERE gap IS NOT NULL;
ALTER TABLE consumers DROP COLUMN gap, DROP COLUMN gap_at;

-- What was published when: under each name that consumers follow the relation and its membership in the
-- publication (the OID of the catalog's row that says so). Others under the same name are another
-- publishing, with a gap before it. lost_at: it is not published as it was.
CREATE TABLE published (
    database_id   int NOT NULL REFERENCES databases ON DELETE CASCADE,
    schema_name   text NOT NULL,
    table_name    text NOT NULL,
    relation_oid  bigint NOT NULL,
    membership    bigint NOT NULL,
    partitions    bigint[] NOT NULL DEFAULT '{}',
    lost_at       timestamptz,
    PRIMARY KEY (database_id, schema_name, table_name)
);

-- The source's place in the WAL when it was last looked whether all is published as it was.
ALTER TABLE databases ADD COLUMN looked_lsn bigint NOT NULL DEFAULT 0;

-- The name that the stream last announced a relation by.
ALTER TABLE relations ADD COLUMN schema_name text NOT NULL DEFAULT '',
    ADD COLUMN table_name text NOT NULL DEFAULT '';

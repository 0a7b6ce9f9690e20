-- Where several processes deliver from one log, each partition is of the one that claimed it last. A
-- cursor's owner is the claim by which its process began with it; NULL where one process has all.
CREATE TABLE log_owners (
    database_id  int NOT NULL REFERENCES databases ON DELETE CASCADE,
    partition    smallint NOT NULL,
    owner        text NOT NULL,
    claimed_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (database_id, partition)
);
ALTER TABLE cursors ADD COLUMN owner text;

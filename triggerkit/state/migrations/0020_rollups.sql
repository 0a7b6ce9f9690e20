-- How runs went, by when they were accepted: of each task, and of all under the name '', in steps of a
-- minute and of a quarter of an hour. They are made of the runs, and made anew while some of a step's are
-- open. latencies counts a sample of the completed ones by how long they took from the commit (where
-- none caused them from their acceptance) to their end, waits those that started by how long they were
-- queued: both by the number of a bucket. Minutes are kept for a day, quarters for a week.
CREATE TABLE run_rollups (
    step_s     int NOT NULL,
    task       text NOT NULL,
    at         timestamptz NOT NULL,
    accepted   int NOT NULL,
    completed  int NOT NULL,
    failed     int NOT NULL,
    open       int NOT NULL,
    latencies  jsonb NOT NULL DEFAULT '{}',
    waits      jsonb NOT NULL DEFAULT '{}',
    rolled_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (step_s, task, at)
);
CREATE INDEX run_rollups_open ON run_rollups (at) WHERE open > 0 AND step_s = 60 AND task = '';

-- How far a consumer was behind, and how far the log had come, once a minute; kept for a week.
CREATE TABLE lag_minutes (
    consumer_id  int NOT NULL REFERENCES consumers ON DELETE CASCADE,
    at           timestamptz NOT NULL,
    messages     bigint NOT NULL,
    seconds      float NOT NULL,
    PRIMARY KEY (consumer_id, at)
);
CREATE TABLE log_minutes (
    database_id  int NOT NULL REFERENCES databases ON DELETE CASCADE,
    at           timestamptz NOT NULL,
    position     bigint NOT NULL,
    PRIMARY KEY (database_id, at)
);

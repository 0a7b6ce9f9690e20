-- The state of triggerkit: everything it remembers, in the schema of its own.

CREATE TABLE installation (
    id          uuid PRIMARY KEY DEFAULT md5(random() || clock_timestamp()::text)::uuid,
    created_at  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO installation DEFAULT VALUES;

-- A source database. next_position is the position the log's next entry gets; last_commit_lsn is
-- the last transaction in the log; a writer holds writer_epoch, and one that lost it is refused.
-- epoch_position is the first position that the present slot can have filled: changes may be
-- missing before it. What is before retained_from was dropped by retention. heartbeat_at is when
-- the stream last saw its own heartbeat come back through the WAL.
CREATE TABLE databases (
    id                 int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name               text NOT NULL UNIQUE,
    slot_name          text NOT NULL,
    publication_name   text NOT NULL,
    system_identifier  text,
    timeline           int,
    slot_epoch         int NOT NULL DEFAULT 0,
    writer_epoch       bigint NOT NULL DEFAULT 0,
    next_position      bigint NOT NULL DEFAULT 1,
    epoch_position     bigint NOT NULL DEFAULT 1,
    retained_from      bigint NOT NULL DEFAULT 1,
    last_commit_lsn    bigint NOT NULL DEFAULT 0,
    heartbeat_at       timestamptz,
    created_at         timestamptz NOT NULL DEFAULT now()
);

-- Where pushes go. headers and signing_secret are encrypted with TRIGGERKIT_ENCRYPTION_KEY.
-- managed_by says who declared it: only that one changes or deletes it.
CREATE TABLE endpoints (
    id              int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text NOT NULL UNIQUE,
    url             text NOT NULL,
    headers         bytea,
    signing_secret  bytea,
    managed_by      text NOT NULL DEFAULT 'api' CHECK (managed_by IN ('code', 'file', 'api')),
    disabled_at     timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now()
);

-- A consumer without an endpoint is pulled. replay_from is the last rewind that a declaration asked
-- for and that was made. gap says why changes are missing for it, until its tables are read anew.
CREATE TABLE consumers (
    id            int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text NOT NULL UNIQUE,
    database_id   int NOT NULL REFERENCES databases,
    endpoint_id   int REFERENCES endpoints,
    kind          text NOT NULL CHECK (kind IN ('rows', 'changes')),
    definition    jsonb NOT NULL,
    state         text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'disabled')),
    replay_epoch  int NOT NULL DEFAULT 0,
    replay_from   text,
    managed_by    text NOT NULL DEFAULT 'api' CHECK (managed_by IN ('code', 'file', 'api')),
    gap           text,
    gap_at        timestamptz,
    last_error    text,
    created_at    timestamptz NOT NULL DEFAULT now()
);

-- The log: every change once, in commit order. Each database has a table of its own in it, which has
-- one table per range of positions, so that what is old is dropped; the log's writer makes them. fault
-- says why an entry has no record though it should: it cannot be delivered, and is parked.
CREATE TABLE events (
    position     bigint NOT NULL,
    database_id  int NOT NULL,
    partition    smallint NOT NULL,
    schema_name  text NOT NULL,
    table_name   text NOT NULL,
    key          text NOT NULL,
    action       text NOT NULL,
    commit_lsn   bigint NOT NULL,
    commit_idx   int NOT NULL,
    commit_at    timestamptz NOT NULL,
    xid          bigint,
    record       text,
    changes      text,
    unchanged    text[],
    consumer_id  int,
    backfill_id  int,
    fault        text,
    annotations  text,
    captured_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (database_id, partition, position)
) PARTITION BY LIST (database_id);
-- An update that leaves a large value as it is does not carry it: it is in the row's last version
-- with a large record. Small records are not in this index, so that they do not pay for it.
CREATE INDEX events_large ON events (database_id, partition, hashtext(key), position)
    WHERE octet_length(record) > 2000 OR unchanged IS NOT NULL OR fault IS NOT NULL;

-- Where a consumer is in each partition of the log. What one attempt sends is remembered before
-- it is sent (batch_*): after an unknown outcome exactly that batch, with its id, is sent again.
-- Of a pulled consumer the batch is what a caller holds until lease_until; leased counts its messages
-- that are not acknowledged or set aside yet, and settled lists those that are before all are. A consumer that is ordered as a whole has one cursor, of
-- partition -1, for all partitions.
CREATE TABLE cursors (
    consumer_id     int NOT NULL REFERENCES consumers ON DELETE CASCADE,
    partition       smallint NOT NULL,
    position        bigint NOT NULL,
    batch_id        text,
    batch_last      bigint,
    attempt         int NOT NULL DEFAULT 0,
    lease_until     timestamptz,
    leased          int NOT NULL DEFAULT 0,
    settled         bigint[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (consumer_id, partition)
) WITH (fillfactor = 50);

-- Messages taken out of the way, with a copy of their body: the log's own partitions are dropped.
-- failing: tried again at due_at; waiting: behind an earlier message of its key; blocked: its attempts
-- are used up, and its key waits for somebody; dead: used up too, and the key goes on without it.
-- failures are the attempts that count: not those at which the endpoint itself failed. What is blocked
-- or dead without an attempt cannot be sent at all. Whoever changes which message of a key is the
-- first holds the cursor of its partition.
CREATE TABLE parked (
    consumer_id  int NOT NULL REFERENCES consumers ON DELETE CASCADE,
    partition    smallint NOT NULL,
    position     bigint NOT NULL,
    key          text NOT NULL,
    body         text NOT NULL,
    reason       text NOT NULL,
    state        text NOT NULL DEFAULT 'failing'
                 CHECK (state IN ('failing', 'waiting', 'blocked', 'dead')),
    attempts     int NOT NULL DEFAULT 0,
    failures     int NOT NULL DEFAULT 0,
    status       int,
    due_at       timestamptz NOT NULL DEFAULT now(),
    lease_id     text,
    parked_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer_id, partition, position)
);
CREATE INDEX parked_key ON parked (consumer_id, hashtext(key), position);
CREATE INDEX parked_due ON parked (consumer_id, due_at) WHERE state = 'failing';

-- One row per attempt of a batch, and per batch that was pulled.
CREATE TABLE deliveries (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer_id     int NOT NULL REFERENCES consumers ON DELETE CASCADE,
    partition       smallint NOT NULL,
    first_position  bigint NOT NULL,
    last_position   bigint NOT NULL,
    batch_id        text NOT NULL,
    attempt         int NOT NULL,
    messages        int NOT NULL,
    sent_at         timestamptz NOT NULL,
    answered_at     timestamptz,
    status          int,
    error           text
);
CREATE INDEX deliveries_position ON deliveries (consumer_id, partition, last_position);

-- What was changed by a command or through the API, and by whom.
CREATE TABLE audit (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    actor    text NOT NULL,
    action   text NOT NULL,
    subject  text NOT NULL,
    detail   jsonb
);

-- A table being read for a consumer. lower_bound and upper_bound bound a partial one by its sort
-- column; rows_per_s throttles it.
CREATE TABLE backfills (
    id             int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer_id    int NOT NULL REFERENCES consumers ON DELETE CASCADE,
    schema_name    text NOT NULL,
    table_name     text NOT NULL,
    sort_column    text,
    state          text NOT NULL DEFAULT 'active'
                   CHECK (state IN ('active', 'paused', 'canceled', 'failed', 'completed')),
    lower_bound    jsonb,
    upper_bound    jsonb,
    rows_per_s     int,
    error          text,
    cursor         jsonb,
    first_position bigint,
    last_position  bigint,
    rows_read      bigint NOT NULL DEFAULT 0,
    rows_logged    bigint NOT NULL DEFAULT 0,
    rows_estimated bigint NOT NULL DEFAULT 0,
    created_at     timestamptz NOT NULL DEFAULT now(),
    finished_at    timestamptz
);
CREATE INDEX backfills_open ON backfills (consumer_id) WHERE state IN ('active', 'paused');

-- An accepted execution of a task. seq is the order of arrival; a run is blocked while an earlier
-- run of its concurrency key is unfinished, so that per key exactly one is not. A run with a key that
-- was accepted in a transaction of the caller's is pending, and blocked, until the keeper has seen it
-- committed: to look at the others of its key, that transaction would have to lock the key to its end,
-- and may see the others as they were long before. gate is set in queues
-- that have a limit or are paused: held, until there is room; open, from then to the attempt's end.
-- A run that is queued, not blocked and not held is ready: its id is in Redis, or on its way there.
-- rank is its place among the ready: when it was last queued, in microseconds since 1970, less its
-- priority. claim names the statement that gave it to its worker: if the answer to that statement is
-- lost, the worker finds by it what it was given. waits counts attempts that asked to be made again
-- later, which use up none of max_attempts.
CREATE TABLE runs (
    id                      text COLLATE "C" PRIMARY KEY,
    seq                     bigint GENERATED ALWAYS AS IDENTITY,
    task                    text NOT NULL,
    queue                   text NOT NULL,
    status                  text NOT NULL CHECK (status IN ('delayed', 'queued', 'executing',
                                'retrying', 'completed', 'failed', 'crashed', 'canceled', 'expired',
                                'timed_out')),
    blocked                 boolean NOT NULL DEFAULT false,
    pending                 boolean NOT NULL DEFAULT false,
    gate                    text CHECK (gate IN ('held', 'open')),
    priority                int NOT NULL DEFAULT 0,
    rank                    bigint NOT NULL
                                DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    attempt                 int NOT NULL DEFAULT 0,
    max_attempts            int NOT NULL,
    waits                   int NOT NULL DEFAULT 0,
    crashes                 int NOT NULL DEFAULT 0,
    payload                 text NOT NULL,
    items                   int,
    output                  text,
    error                   jsonb,
    idempotency_key         text,
    idempotency_expires_at  timestamptz,
    concurrency_key         text,
    debounce_key            text,
    tags                    text[] NOT NULL DEFAULT '{}',
    metadata                jsonb NOT NULL DEFAULT '{}',
    source                  jsonb,
    item_key                text,
    created_at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    scheduled_at            timestamptz,
    expires_at              timestamptz,
    started_at              timestamptz,
    finished_at             timestamptz,
    cancel_requested_at     timestamptz,
    worker                  text,
    claim                   text,
    version                 text,
    replay_of               text,
    parent_id               text,
    traceparent             text,
    awaited                 boolean NOT NULL DEFAULT false
) WITH (fillfactor = 70);
-- Payloads are JSON already validated at the door: compressing them costs more than it saves.
ALTER TABLE runs ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX runs_idempotency ON runs (task, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE UNIQUE INDEX runs_debounce ON runs (task, debounce_key)
    WHERE debounce_key IS NOT NULL AND status = 'delayed';
CREATE INDEX runs_ready ON runs (task, rank)
    WHERE status = 'queued' AND NOT blocked AND gate IS DISTINCT FROM 'held';
CREATE INDEX runs_held ON runs (queue, rank)
    WHERE status = 'queued' AND NOT blocked AND gate = 'held';
CREATE INDEX runs_open ON runs (queue) WHERE gate = 'open';
CREATE INDEX runs_key ON runs (task, concurrency_key, seq)
    WHERE concurrency_key IS NOT NULL AND finished_at IS NULL;
CREATE INDEX runs_going ON runs (task, concurrency_key)
    WHERE concurrency_key IS NOT NULL AND finished_at IS NULL AND NOT blocked;
CREATE INDEX runs_pending ON runs (seq) WHERE pending;
CREATE INDEX runs_item ON runs (task, item_key) WHERE item_key IS NOT NULL AND finished_at IS NULL;
CREATE INDEX runs_due ON runs (scheduled_at) WHERE status IN ('delayed', 'retrying');
CREATE INDEX runs_expiring ON runs (expires_at)
    WHERE expires_at IS NOT NULL AND status IN ('delayed', 'queued') AND attempt = 0;
CREATE INDEX runs_parent ON runs (parent_id, id) WHERE parent_id IS NOT NULL;
CREATE INDEX runs_worker ON runs (worker) WHERE status = 'executing';
CREATE INDEX runs_unsuccessful ON runs (status, id)
    WHERE status IN ('failed', 'crashed', 'canceled', 'expired', 'timed_out');

-- Whoever waits for a run's end listens here.
CREATE FUNCTION tell_of_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('triggerkit_ended', NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER runs_awaited AFTER UPDATE OF finished_at ON runs FOR EACH ROW
    WHEN (NEW.awaited AND NEW.finished_at IS NOT NULL AND OLD.finished_at IS NULL)
    EXECUTE FUNCTION triggerkit.tell_of_end();

-- The attempts that did not succeed; one that did is in its run's own row.
CREATE TABLE attempts (
    run_id       text COLLATE "C" NOT NULL,
    attempt      int NOT NULL,
    status       text NOT NULL,
    started_at   timestamptz NOT NULL,
    finished_at  timestamptz NOT NULL,
    worker       text NOT NULL,
    error        jsonb,
    PRIMARY KEY (run_id, attempt)
);

-- What a run said: spans of its own, and lines that it logged or printed. parent is the id of the
-- span around it. ended_at is null of a line.
CREATE TABLE spans (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id      text COLLATE "C" NOT NULL,
    attempt     int NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('span', 'log')),
    span_id     text,
    parent      text,
    name        text NOT NULL,
    level       text,
    attributes  jsonb NOT NULL DEFAULT '{}',
    error       text,
    started_at  timestamptz NOT NULL,
    ended_at    timestamptz
);
CREATE INDEX spans_run ON spans (run_id, id);

-- A process that executes runs. beat is raised by its parent process. It is dead when an observer saw
-- its beat unchanged for the whole lease on the observer's own clock: no wall clock decides. An observer
-- of the same home (a boot and a space of process ids) also sees whether the process pid, which started
-- at pid_started, is there. backend is the
-- server's process of its keeper. tasks are those it knows; slots and async_slots are how many runs of sync and of async tasks it takes at once.
CREATE TABLE workers (
    id           text PRIMARY KEY,
    hostname     text NOT NULL,
    pid          int NOT NULL,
    parent_pid   int NOT NULL,
    home         text,
    pid_started  bigint,
    backend      int,
    queues       text[] NOT NULL DEFAULT '{}',
    tasks        text[] NOT NULL DEFAULT '{}',
    version      text,
    slots        int NOT NULL,
    async_slots  int NOT NULL DEFAULT 0,
    beat         bigint NOT NULL DEFAULT 0,
    started_at   timestamptz NOT NULL DEFAULT now()
);

-- Queues with a limit, and queues that are paused; others need no row. At most rate_limit runs start in
-- any rate_period_s seconds. managed_by says who set the limits: only that one changes them.
CREATE TABLE queues (
    name           text PRIMARY KEY,
    concurrency    int CHECK (concurrency > 0),
    rate_limit     int CHECK (rate_limit > 0),
    rate_period_s  float CHECK (rate_period_s > 0),
    managed_by     text NOT NULL DEFAULT 'api' CHECK (managed_by IN ('code', 'api')),
    paused_at      timestamptz
);

-- When runs of queues with a rate limit started.
CREATE TABLE starts (
    queue  text NOT NULL,
    at     timestamptz NOT NULL
);
CREATE INDEX starts_queue ON starts (queue, at);

-- Runs made by the clock. next_at is the tick to come, and fences it: whoever makes its run moves it.
CREATE TABLE schedules (
    name          text PRIMARY KEY,
    task          text NOT NULL,
    queue         text NOT NULL,
    max_attempts  int NOT NULL,
    cron          text NOT NULL,
    timezone      text NOT NULL,
    catch_up      boolean NOT NULL DEFAULT false,
    payload       text NOT NULL DEFAULT 'null',
    paused_at     timestamptz,
    next_at       timestamptz NOT NULL,
    last_at       timestamptz,
    last_run      text
);
CREATE INDEX schedules_due ON schedules (next_at) WHERE paused_at IS NULL;

-- Who may read the events over REST: the password's scrypt hash, with its cost and salt.
CREATE TABLE event_users (
    name        text PRIMARY KEY,
    password    text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- Consumer groups of the events REST API. Whoever changes anything of a group holds its row.
CREATE TABLE event_groups (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name  text NOT NULL UNIQUE
);

-- The instances of a group: gone when silent for longer than their session. request is the newest of
-- the requests to consume, and server the process that answered it.
CREATE TABLE event_instances (
    group_id            bigint NOT NULL REFERENCES event_groups ON DELETE CASCADE,
    name                text NOT NULL,
    topics              text[] NOT NULL,
    auto_commit         boolean NOT NULL,
    commit_interval_ms  int NOT NULL,
    offset_reset        text NOT NULL CHECK (offset_reset IN ('latest', 'earliest', 'none')),
    session_timeout_ms  int NOT NULL,
    seen_at             timestamptz NOT NULL,
    committed_at        timestamptz NOT NULL,
    request             bigint NOT NULL DEFAULT 0,
    server              bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (group_id, name)
);

-- Where a group is in each partition of a topic. position is what its owner gets next, handed_from
-- where the last answer began as long as nothing says that it arrived; committed is where another
-- goes on, and first where that was before anything was committed. next_owner gets the partition as soon as its
-- owner asks for more.
CREATE TABLE event_offsets (
    group_id     bigint NOT NULL REFERENCES event_groups ON DELETE CASCADE,
    topic        text NOT NULL,
    partition    int NOT NULL,
    owner        text,
    next_owner   text,
    first        bigint,
    committed    bigint,
    position     bigint,
    handed_from  bigint,
    PRIMARY KEY (group_id, topic, partition)
);

-- Where the log is on Kafka: what each partition has, as it was looked at last. Of one of which nothing was
-- dropped the first position is 1.
CREATE TABLE log_extents (
    database_id     int NOT NULL REFERENCES databases ON DELETE CASCADE,
    partition       smallint NOT NULL,
    first_position  bigint NOT NULL,
    last_position   bigint NOT NULL,
    looked_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (database_id, partition)
);
-- And how much of it a consumer had not got, from its cursor on: nobody can count that in the state.
CREATE TABLE log_lags (
    consumer_id  int NOT NULL REFERENCES consumers ON DELETE CASCADE,
    partition    smallint NOT NULL,
    position     bigint NOT NULL,
    messages     bigint NOT NULL,
    oldest_at    timestamptz,
    PRIMARY KEY (consumer_id, partition)
);

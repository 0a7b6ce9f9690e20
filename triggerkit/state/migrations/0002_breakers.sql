-- Tasks whose runs wait, since what they call is busy or away (an exception of the task's wait_for).
-- While a breaker is open, which is until closed_at, no run of its task is claimed but the probe: the
-- run that the keeper names once probe_at has come. When the probe meets such an exception again,
-- probe_at moves on; when it ends otherwise, the breaker is closed and all may go on. told_at is when
-- it was last said that the task waits.
CREATE TABLE breakers (
    task       text PRIMARY KEY,
    opened_at  timestamptz NOT NULL DEFAULT now(),
    told_at    timestamptz NOT NULL DEFAULT now(),
    closed_at  timestamptz,
    probe_at   timestamptz NOT NULL,
    probe      text COLLATE "C",
    error      jsonb NOT NULL
);

-- Problems that alerts are sent of: seen from since to seen_at; told is how often, and told_at when last.
CREATE TABLE alerts (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind      text NOT NULL,
    subject   text NOT NULL,
    problem   text NOT NULL,
    severity  text NOT NULL,
    detail    text NOT NULL,
    remedy    text NOT NULL,
    since     timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    told      int NOT NULL DEFAULT 0,
    told_at   timestamptz,
    UNIQUE (kind, subject, problem)
);

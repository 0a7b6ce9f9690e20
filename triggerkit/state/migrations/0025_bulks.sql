-- One action on all runs or parked messages that fit a filter, done by `serve` in bounded steps. The
-- cursor is where the next step begins; a step that is cut off is done again from there. expected is
-- how many there were when it was asked for, NULL where that was not counted. changed are those it was
-- done to, refused those it could not be done to, refusal what the first of them says.
CREATE TABLE bulks (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    action       text NOT NULL CHECK (action IN
                     ('cancel runs', 'replay runs', 'retry messages', 'discard messages')),
    filter       jsonb NOT NULL,
    current      boolean NOT NULL DEFAULT false,
    actor        text NOT NULL,
    state        text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'stopped', 'failed', 'done')),
    expected     bigint,
    looked       bigint NOT NULL DEFAULT 0,
    changed      bigint NOT NULL DEFAULT 0,
    refused      bigint NOT NULL DEFAULT 0,
    refusal      text,
    error        text,
    cursor       text,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    worked_at    timestamptz,
    finished_at  timestamptz
);
CREATE INDEX bulks_active ON bulks (id) WHERE state = 'active';

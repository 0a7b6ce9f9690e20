-- superseded: parked before its table was truncated, and not delivered any more.
ALTER TABLE parked DROP CONSTRAINT parked_state_check, ADD CONSTRAINT parked_state_check
    CHECK (state IN ('failing', 'waiting', 'blocked', 'dead', 'superseded'));

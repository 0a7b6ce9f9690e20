-- A run of a queue with a limit lends its room while it waits for another run, and then wants it back: what
-- wants its room back goes before what waits at the gate.
ALTER TABLE runs DROP CONSTRAINT runs_gate_check;
ALTER TABLE runs ADD CONSTRAINT runs_gate_check CHECK (gate IN ('held', 'open', 'lent', 'back')) NOT VALID;
CREATE INDEX runs_back ON runs (queue) WHERE gate = 'back';

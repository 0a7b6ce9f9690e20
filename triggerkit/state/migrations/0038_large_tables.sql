-- Parked messages are counted by their state, and listed by their positions, of one state or of all.
CREATE INDEX parked_state ON parked (consumer_id, state, position);
-- What was noted once a minute is forgotten by its time, and read so of all consumers, or tasks, together.
CREATE INDEX lag_minutes_at ON lag_minutes (at);
CREATE INDEX run_rollups_at ON run_rollups (step_s, at);

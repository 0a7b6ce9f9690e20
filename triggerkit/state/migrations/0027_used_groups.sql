-- When a group of the events was last known to be used, besides by the instances that it has: groups that
-- were not used for long make room for others.
ALTER TABLE event_groups ADD COLUMN used_at timestamptz NOT NULL DEFAULT now();

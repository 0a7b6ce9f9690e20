-- What became of a run that was replayed is told by its replays. Few runs are.
CREATE INDEX runs_replays ON runs (replay_of) WHERE replay_of IS NOT NULL;

-- confirmed_lsn is what the slot may have been told to be durable: it is written first. A slot that was told
-- more belongs to a log that has lost its end, or was restored from a backup. NULL before it was first known.
ALTER TABLE databases ADD COLUMN confirmed_lsn bigint;

-- The slots of a database that another one took the place of: what each captured is in the log before
-- next_position, from that of the one before it on. Entries are of the slot that captured them, whichever
-- there is now. Of the slots that were replaced before this table was, nothing is known.
CREATE TABLE past_slots (
    database_id        int NOT NULL REFERENCES databases ON DELETE CASCADE,
    epoch              int NOT NULL,
    system_identifier  text NOT NULL,
    next_position      bigint NOT NULL,
    PRIMARY KEY (database_id, epoch)
);

-- A source database is known by its server and its OID there: its name is a label, which another server's
-- may have too. NULL for what was made before, until it is seen again.
ALTER TABLE databases ADD COLUMN database_oid bigint;
CREATE UNIQUE INDEX databases_identity ON databases (system_identifier, database_oid);

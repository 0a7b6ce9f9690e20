-- What keeps a row's messages in order names its table as consumers do: without quotes, rows of "a.b".c
-- and of a."b.c" were one. The first of each key is tried, which may have waited behind the other table's.
UPDATE parked SET key = triggerkit.table_text(schema_name, table_name) || ':' || row_key
WHERE (schema_name || table_name) ~ '[."]' AND key = schema_name || '.' || table_name || ':' || row_key;
UPDATE parked p SET state = 'failing', due_at = clock_timestamp()
WHERE (schema_name || table_name) ~ '[."]' AND state = 'waiting' AND NOT EXISTS (
    SELECT FROM parked e WHERE e.consumer_id = p.consumer_id AND hashtext(e.key) = hashtext(p.key)
        AND e.key = p.key AND e.position < p.position AND e.state IN ('failing', 'waiting', 'blocked'));

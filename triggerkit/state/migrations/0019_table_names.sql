-- The text of a table's name, by which consumers follow it: a part that has a dot or a quote is quoted.
CREATE FUNCTION table_text(schema_name text, table_name text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN strpos(schema_name, '.') = 0 AND strpos(schema_name, '"') = 0 THEN schema_name
            ELSE '"' || replace(schema_name, '"', '""') || '"' END || '.'
        || CASE WHEN strpos(table_name, '.') = 0 AND strpos(table_name, '"') = 0 THEN table_name
            ELSE '"' || replace(table_name, '"', '""') || '"' END
$$;

-- Names were cut at their last dot before.
UPDATE consumers c SET definition = jsonb_set(c.definition, '{tables}', (
    SELECT jsonb_agg(triggerkit.table_text(regexp_replace(t.name, '\.[^.]*$', ''),
        substring(t.name FROM '[^.]*$')) ORDER BY t.place)
    FROM jsonb_array_elements_text(c.definition -> 'tables') WITH ORDINALITY t (name, place)))
WHERE EXISTS (
    SELECT FROM jsonb_array_elements_text(c.definition -> 'tables') t (name)
    WHERE t.name ~ '\..*\.' OR t.name ~ '"');

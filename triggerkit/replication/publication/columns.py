"""Tell which columns of a table messages have: those that its publication holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from triggerkit.replication.publication.tables import GENERATED_FROM, publishes_generated
from triggerkit.state.reading import Reads, rows_of

#: What a column list leaves out is not published. By way of JSON, since older servers have none.
_COLUMNS = """
SELECT n.nspname, c.relname, a.attname, a.atttypid::bigint
FROM unnest(%(schemas)s::text[], %(names)s::text[]) w (schema, name)
JOIN pg_namespace n ON n.nspname = w.schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN (
    SELECT schemaname, tablename, to_jsonb(p) -> 'attnames' AS names
    FROM pg_publication_tables p WHERE pubname = %(publication)s
) p ON p.schemaname = w.schema AND p.tablename = w.name
WHERE CASE a.attgenerated
    WHEN '' THEN p.names IS NULL OR p.names ? a.attname::text
    WHEN 's' THEN %(has_generated)s OR %(may_list)s AND p.names ? a.attname::text
    ELSE false END
ORDER BY a.attnum
"""


async def published_columns(
    connection: Reads, publication: str, tables: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], dict[str, int]]:
    """Return the columns that messages of `tables` have, in order, with their types' OIDs.

    A table that `publication` does not hold yet has those that it will have.
    """
    listed = list(tables)
    parameters = {
        "schemas": [schema for schema, _ in listed],
        "names": [name for _, name in listed],
        "publication": publication,
        "has_generated": await publishes_generated(connection, publication),
        "may_list": connection.info.server_version >= GENERATED_FROM,
    }
    found: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for schema, name, column, type_oid in await rows_of(connection, _COLUMNS, parameters):
        found[schema, name][column] = type_oid
    return found

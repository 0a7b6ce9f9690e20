"""Tell which columns of a table messages have: those that its publication holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from triggerkit.replication.publication.tables import GENERATED_FROM, publishes_generated
from triggerkit.state.reading import Reads, rows_of

#: What a column list leaves out is not published: by way of JSON, since older servers have no
#: such lists. `pg_publication_tables` would look at all tables that are published, each time.
_COLUMNS = """
SELECT n.nspname, c.relname, a.attname, a.atttypid::bigint
FROM unnest(%(schemas)s::text[], %(names)s::text[]) w (schema, name)
JOIN pg_namespace n ON n.nspname = w.schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_publication b ON b.pubname = %(publication)s
LEFT JOIN pg_publication_rel r ON r.prpubid = b.oid AND r.prrelid = c.oid
CROSS JOIN LATERAL (
    SELECT nullif(to_jsonb(r) -> 'prattrs', 'null') AS numbers, to_jsonb(a.attnum) AS number) l
WHERE CASE a.attgenerated
    WHEN '' THEN l.numbers IS NULL OR l.numbers @> l.number
    WHEN 's' THEN %(has_generated)s OR %(may_list)s AND l.numbers @> l.number
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

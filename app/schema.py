"""Creates the reference app's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from psycopg import Connection, sql

from triggerkit.errors import ConfigurationError

SCHEMA = Path(__file__).with_name("schema.sql")

# The dimensions the existing column has: pgvector keeps them as the type's modifier.
DIMENSIONS = """
SELECT atttypmod FROM pg_attribute
WHERE attrelid = 'post_embeddings'::regclass AND attname = 'embedding'
"""


def apply_schema(connection: Connection[Any], dimensions: int = 1536) -> None:
    """Create what is missing, in one transaction. Harmless when all is there.

    Raises:
        ConfigurationError: the table exists with other dimensions.
    """
    statements = sql.SQL(SCHEMA.read_text()).format(dimensions=sql.Literal(dimensions))
    with connection.transaction():
        connection.execute(statements)
        found = connection.execute(DIMENSIONS).fetchone()
    if found is not None and found[0] != dimensions:
        raise ConfigurationError(
            f"post_embeddings holds vectors of {found[0]} dimensions, but EMBEDDING_DIMENSIONS is "
            f"{dimensions}; correct the setting, or drop the table and start a backfill"
        )

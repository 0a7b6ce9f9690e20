"""`python -m app.setup`: the reference app's tables and its sample posts, where they are missing."""

from __future__ import annotations

import psycopg

from app.posts import seed
from app.schema import apply_schema
from app.settings import load_settings


def main() -> None:
    """Create the tables, and fill `posts` when it is empty."""
    settings = load_settings()
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        apply_schema(connection, settings.embedding_dimensions)
        if count := seed(connection):
            print(f"{count:,} sample posts: the documentation of Python's standard library")


if __name__ == "__main__":
    main()

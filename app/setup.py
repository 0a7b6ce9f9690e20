"""Creates the tables and fills in the sample posts: `python -m app.setup`, which `dev` runs."""

from __future__ import annotations

import sys

import psycopg

from app.posts import seed
from app.schema import apply_schema
from app.settings import load_settings
from triggerkit.errors import TriggerkitError


def main() -> int:
    """Make what is missing; returns the exit code: 0 done, 1 or 2 failed, 4 cannot connect."""
    try:
        settings = load_settings()
        with psycopg.connect(settings.database_url, autocommit=True) as connection:
            apply_schema(connection, settings.embedding_dimensions)
            count = seed(connection)
    except psycopg.OperationalError as error:
        sys.stderr.write(f"error: {error}\n")
        return 4
    except TriggerkitError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    if count:
        sys.stdout.write(f"{count} sample posts from the standard library's docs\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

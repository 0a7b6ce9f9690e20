"""The index, a file of SQLite's FTS5, and a search in it: `python search.py WORDS`."""

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager


@contextmanager
def opened_index() -> Iterator[sqlite3.Connection]:
    """Open the index for one transaction: all of it is there at the end, or nothing."""
    path = os.environ.get("SEARCH_INDEX", "search.db")
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as index:
        # Writers wait for each other here, at the beginning, and never in the midst.
        index.execute("BEGIN IMMEDIATE")
        index.execute(
            "CREATE VIRTUAL TABLE IF NOT EXISTS articles "
            "USING fts5(title, body, position UNINDEXED, tokenize = 'porter')"
        )
        yield index
        index.execute("COMMIT")


def search(words: str, limit: int = 10) -> list[tuple[int, str]]:
    """Return the ids and titles of the articles that have all `words`, the best first."""
    quoted = " ".join('"' + word.replace('"', '""') + '"' for word in words.split())
    with opened_index() as index:
        found = index.execute(
            "SELECT rowid, title FROM articles WHERE articles MATCH ? ORDER BY rank LIMIT ?",
            [quoted, limit],
        )
        return found.fetchall()


if __name__ == "__main__":
    for article_id, title in search(" ".join(sys.argv[1:])):
        print(f"{article_id}. {title}")

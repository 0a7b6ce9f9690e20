"""The reference project with many posts, on servers that are there, with a fake embeddings API."""

from __future__ import annotations

import re
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from app.schema import apply_schema
from bench.processes import Program
from bench.project import ROOT, Connection, connect
from bench.rivals.embeddings_server import DIMENSIONS

#: Rows of one transaction.
TRANSACTION_ROWS = 10_000

# Texts of about 450 characters, each one's own.
_INSERT = """
INSERT INTO posts (title, body, author)
SELECT 'Post ' || n, repeat(md5(n::text) || ' ' || md5((-n)::text) || ' ', 6) || n, 'author'
FROM generate_series(%s::int, %s::int) AS n
"""


def reference_project(folder: Path) -> Path:
    """Copy the reference project to `folder`."""
    folder.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("app", "tasks"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "triggerkit.toml", folder)
    return folder


def make_posts(dsn: str, count: int) -> None:
    """Make the tables and `count` posts; the planner knows them."""
    with connect(dsn) as connection:
        apply_schema(connection, DIMENSIONS)
        add_posts(connection, count)
        connection.execute("VACUUM ANALYZE posts")
        connection.execute("CHECKPOINT")


def add_posts(connection: Connection, count: int, first: int = 1) -> None:
    """Insert `count` posts, whose texts are of the numbers from `first` on."""
    end = first + count
    for start in range(first, end, TRANSACTION_ROWS):
        connection.execute(_INSERT, [start, min(start + TRANSACTION_ROWS, end) - 1])


@dataclass(frozen=True, slots=True)
class FakeApi:
    """A running fake embeddings API: `url` is what clients call the base URL."""

    url: str

    @property
    def settings(self) -> dict[str, str]:
        """What the `openai` client, and the reference task, read."""
        return {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": self.url}

    def counts(self) -> dict[str, Any]:
        """Requests, inputs, distinct texts, and the times of the first and the last request."""
        return self._get("counts")

    def reset(self) -> None:
        """Count anew."""
        self._get("reset")

    def _get(self, name: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url.removesuffix('/v1')}/{name}") as answer:
            return dict(orjson.loads(answer.read()))


@contextmanager
def fake_api(folder: Path, latency_ms: int = 0) -> Iterator[FakeApi]:
    """A fake embeddings API in a process of its own."""
    arguments = ["bench.rivals.embeddings_server", f"--latency-ms={latency_ms}"]
    with Program(folder, arguments, {"PYTHONPATH": str(ROOT)}) as program:
        found = re.search(r"ready on port (\d+)", program.printed())
        assert found is not None
        yield FakeApi(f"http://127.0.0.1:{found[1]}/v1")

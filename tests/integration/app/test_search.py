"""From sample posts to search results: the real offline model, the real task, the real command."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
import wordllama
from starlette.applications import Starlette
from starlette.routing import Route

from app.main import search_posts
from app.posts import sample_posts, seed
from app.resources import close_resources
from app.schema import apply_schema
from app.search import main
from tasks.create_embedding_for_post import Post, create_embedding_for_post
from tests.integration.app.openai_server import OpenAIServer
from tests.integration.app.reference import DIMENSIONS, reference_tables
from triggerkit import Change
from triggerkit.errors import ConfigurationError
from triggerkit.message import Metadata


@pytest.fixture(scope="module")
def api() -> Iterator[OpenAIServer]:
    model = wordllama.WordLlama.load(
        config="l2_supercat",
        dim=DIMENSIONS,
        cache_dir=Path(wordllama.__file__).parent,
        disable_download=True,
    )

    def embed(texts: list[str], _dimensions: int) -> list[array[float]]:
        return [array("f", row.tobytes()) for row in model.embed(texts, norm=True)]

    with OpenAIServer(DIMENSIONS).running() as server:
        server.vectors = embed
        yield server


@pytest.fixture
def database(
    database_url: str, api: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[psycopg.Connection[Any]]:
    with reference_tables(database_url, api, monkeypatch, "wordllama") as connection:
        yield connection


def embed_all(database: psycopg.Connection[Any]) -> None:
    """Run the task on all posts, as a backfill would."""
    posts = database.execute("SELECT id, title, body FROM posts ORDER BY id").fetchall()
    metadata = Metadata(table_schema="public", table_name="posts", commit_lsn=1)
    reads = [Change(Post(id=i, title=t, body=b), None, "read", metadata) for i, t, b in posts]

    async def run() -> None:
        for start in range(0, len(reads), 256):
            await create_embedding_for_post(reads[start : start + 256])
        await close_resources()

    asyncio.run(run())


def get(path: str) -> httpx2.Response:
    """Ask the app's search route."""

    async def ask() -> httpx2.Response:
        transport = httpx2.ASGITransport(Starlette(routes=[Route("/search", search_posts)]))
        async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
            response = await client.get(path)
        await close_resources()
        return response

    return asyncio.run(ask())


def test_the_schema_can_be_applied_again_but_not_with_other_dimensions(
    database: psycopg.Connection[Any],
) -> None:
    apply_schema(database, DIMENSIONS)
    with pytest.raises(ConfigurationError, match="256 dimensions, but EMBEDDING_DIMENSIONS is 8"):
        apply_schema(database, 8)


def test_seeding_fills_only_an_empty_table(database: psycopg.Connection[Any]) -> None:
    assert seed(database) == len(sample_posts())
    assert seed(database) == 0
    row = database.execute("SELECT count(*), count(DISTINCT id) FROM posts").fetchone()
    assert row == (len(sample_posts()), len(sample_posts()))


def test_the_seeded_posts_are_found_by_meaning(
    database: psycopg.Connection[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    seed(database)
    embed_all(database)

    results = get("/search?q=compress+files").json()
    assert results["query"] == "compress files"
    authors = [hit["author"] for hit in results["results"]]
    assert {"zlib", "gzip", "bz2", "lzma"} & set(authors)
    assert results["results"][0].keys() == {"post_id", "title", "author", "distance", "excerpt"}

    assert main(["random numbers"]) == 0
    printed = capsys.readouterr().out
    assert "[random, distance 0." in printed
    assert printed.count("distance") == 5

    assert len(get("/search?q=json&limit=2").json()["results"]) == 2


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/search", "say what to look for"),
        ("/search?q=+", "say what to look for"),
        (f"/search?q={'x' * 1001}", "1001 characters"),
        ("/search?q=a&limit=0", "from 1 to 50"),
        ("/search?q=a&limit=many", "from 1 to 50"),
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(path: str, told: str) -> None:
    response = get(path)
    assert response.status_code == 400
    assert told in response.json()["error"]


def test_without_embeddings_the_search_says_what_to_do(
    database: psycopg.Connection[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["anything"]) == 1
    assert "triggerkit dev" in capsys.readouterr().err
    response = get("/search?q=anything")
    assert response.status_code == 503
    assert "no embeddings yet" in response.json()["error"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:1/v1"),
    ],
)
def test_a_server_that_is_away_is_named(
    database: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    setting: str,
    value: str,
) -> None:
    monkeypatch.setenv(setting, value)
    assert main(["anything"]) == 4
    assert "127.0.0.1" in capsys.readouterr().err

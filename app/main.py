"""The reference app: a search over the posts, and the webhook route of its task."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from app.resources import close_resources
from app.search import DEFAULT_LIMIT, MAX_LIMIT, search
from tasks.create_embedding_for_post import create_embedding_for_post
from triggerkit import webhook
from triggerkit.errors import TriggerkitError

MAX_QUERY_CHARS = 1000

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Posts</title>
<h1>Search the posts</h1>
<form action="/search">
  <input name="q" aria-label="What to look for" placeholder="compress files" required>
  <button>Search</button>
</form>
<p>Each post has an embedding, kept up to date by the task <code>create_embedding_for_post</code>.
</p>
</html>
"""


async def home(_request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


async def search_posts(request: Request) -> JSONResponse:
    """Answer `{"query", "results": [hit, …]}`, best first; `{"error"}` when it cannot."""
    query = request.query_params.get("q", "").strip()
    limit = request.query_params.get("limit", str(DEFAULT_LIMIT))
    wrong = _what_is_wrong(query, limit)
    if wrong is not None:
        return JSONResponse({"error": wrong}, status_code=400)
    try:
        hits = await search(query, int(limit))
    except TriggerkitError as error:
        return JSONResponse({"error": str(error)}, status_code=503)
    return JSONResponse({"query": query, "results": [hit._asdict() for hit in hits]})


def _what_is_wrong(query: str, limit: str) -> str | None:
    if not query:
        return "say what to look for: /search?q=compress+files"
    if len(query) > MAX_QUERY_CHARS:
        return f"q has {len(query)} characters; at most {MAX_QUERY_CHARS} are searched for"
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= MAX_LIMIT):
        return f"limit must be a number from 1 to {MAX_LIMIT}"
    return None


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    """The clients open with the first search; here they are closed."""
    yield
    await close_resources()


app = Starlette(
    routes=[
        Route("/", home),
        Route("/search", search_posts),
        webhook("/api/create-embedding-for-post", task=create_embedding_for_post),
    ],
    lifespan=lifespan,
)

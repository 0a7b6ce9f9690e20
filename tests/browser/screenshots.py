"""Take pictures of the dashboard of the reference project: `make screenshots`, into docs/images/,
those of README.

With a folder as its argument it takes every page into it, in both themes, small and large.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import psycopg
from playwright.sync_api import Browser

from tests.acceptance.project import ROOT, ReferenceProject, eventually
from tests.browser.reader import Reader, chromium
from tests.browser.test_pages import pages

IMAGES = ROOT / "docs" / "images"

THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

#: What happens to a few posts, so that there is something to see.
CHANGES = (
    "INSERT INTO posts (title) SELECT 'About ' || n FROM generate_series(1, 9) n",
    "UPDATE posts SET title = title || ', again' WHERE id % 30 = 0",
    "DELETE FROM posts WHERE id = 7",
)

#: What happens meanwhile, so that charts have a line, and at last.
MORE = "UPDATE posts SET title = title || '.' WHERE id % 97 = extract(second FROM now())::int % 97"
LAST_CHANGE = "UPDATE posts SET title = title || ', explained' WHERE id = 9"

#: Minutes with runs, which the charts draw.
_DRAWN = """
SELECT count(*) >= 3 FROM triggerkit.run_rollups WHERE step_s = 60 AND task = '' AND accepted > 0
"""

#: Whether each post has its embedding, and no run is under way.
_IN_STEP = """
SELECT (SELECT count(*) FROM post_embeddings) = (SELECT count(*) FROM posts)
    AND NOT EXISTS (SELECT FROM triggerkit.runs WHERE status NOT IN ('completed', 'failed'))
"""

#: The run of the last change.
_LAST_RUN = """
SELECT id FROM triggerkit.runs WHERE status = 'completed' AND payload LIKE '%, explained%'
"""


def take(folder: Path | None) -> None:
    """Take the pictures of README, or of all pages into `folder`."""
    with tempfile.TemporaryDirectory() as home, chromium() as browser:
        project = ReferenceProject(Path(home))
        try:
            project.start()
            run = _fill(project)
            wanted = {"overview": "/", "run": f"/runs/{run}"}
            if folder is not None:
                wanted |= {_name(path): path for path in pages() if path not in ("/", "/login")}
                wanted |= {"consumer": "/consumers/create_embedding_for_post"}
                wanted |= {"why-post": "/why?q=public.posts+3"}
            if folder is None:
                _take(browser, project, "light", 1440, wanted, IMAGES, is_whole=False)
                return
            for theme in THEMES:
                for width in (360, 1440):
                    _take(browser, project, theme, width, wanted, folder, is_whole=True)
        finally:
            project.dev.close()


def _fill(project: ReferenceProject) -> str:
    """Change some rows; return the run of the last update."""
    with project.connect() as connection:
        for change in CHANGES:
            connection.execute(change)
            eventually(lambda: connection.execute(_IN_STEP).fetchone() == (True,), 60, "effects")
        eventually(lambda: _goes_on(connection), 400, "minutes to draw")
        connection.execute(LAST_CHANGE)
        eventually(lambda: connection.execute(_LAST_RUN).fetchone() is not None, 60, "its run")
        return str((connection.execute(_LAST_RUN).fetchone() or ("",))[0])


def _goes_on(connection: psycopg.Connection[Any]) -> bool:
    connection.execute(MORE)
    # As seldom as somebody writes.
    time.sleep(2)
    return connection.execute(_DRAWN).fetchone() == (True,)


def _take(
    browser: Browser,
    project: ReferenceProject,
    theme: Literal["light", "dark"],
    width: int,
    wanted: dict[str, str],
    folder: Path,
    *,
    is_whole: bool,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(color_scheme=theme, viewport={"width": width, "height": 960})
    reader = Reader(context.new_page(), f"{project.dev.url}/dashboard")
    reader.log_in(project.secret("TRIGGERKIT_SECRET_KEY"))
    for name, path in wanted.items():
        reader.open(path)
        size = "" if width == 1440 else f"-{width}"
        reader.page.screenshot(path=folder / f"{name}-{theme}{size}.png", full_page=is_whole)
    context.close()


def _name(path: str) -> str:
    return path.strip("/").replace("/", "-")


if __name__ == "__main__":
    take(Path(sys.argv[1]) if len(sys.argv) > 1 else None)

"""Bring what the documents link to outside their folder into the site.

Pages of the project's root and of the examples become pages of the site, at the path that they have
in the project. Other files become texts in `source/`. Links in the pages are written to match.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent

#: Pages from outside the folder of the documents.
OUTSIDE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("examples/**/*.md")),
)

#: A link to a file: its text, its target and what stands behind that.
LINK = re.compile(r"(\]\()([^)#\s:]+)((?:#[^)]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside, and the text of every file that a page links to."""
    for name in OUTSIDE:
        files.append(File.generated(config, name, content=(ROOT / name).read_text()))
    for page in list(files.documentation_pages()):
        for _, target, _ in LINK.findall(page.content_string):
            linked = _linked(page.src_uri, target)
            uri = _uri_of(linked)
            if (ROOT / linked).is_file() and files.get_file_from_path(uri) is None:
                text = (ROOT / linked).read_text()
                files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: object) -> str:
    """Write each link as it is in the site; what is not there is left to be reported."""
    here = posixpath.dirname(page.file.src_uri)

    def in_site(found: re.Match[str]) -> str:
        before, target, after = found.groups()
        uri = _uri_of(_linked(page.file.src_uri, target))
        if files.get_file_from_path(uri) is None:
            return found.group()
        return f"{before}{posixpath.relpath(uri, here or '.')}{after}"

    return LINK.sub(in_site, markdown)


def _linked(page_uri: str, target: str) -> str:
    """Return the path in the project that a page's link leads to."""
    folder = posixpath.dirname(page_uri if page_uri in OUTSIDE else f"docs/{page_uri}")
    return posixpath.normpath(posixpath.join(folder, target))


def _uri_of(path: str) -> str:
    """Return where a file of the project is in the site."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path == "README.md":
        return "index.md"
    return path if path in OUTSIDE else f"source/{path.lstrip('.')}.txt"

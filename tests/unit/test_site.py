"""The documents as a site: whole, and showing nothing that comes from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

#: What a browser fetches by itself.
FETCHED = re.compile(r"<(?:script|img|link)\b[^>]*(?:src|href)=\"?(https?:)?//")


def build(target: Path, config: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-f", str(config), "-d", str(target)],
        cwd=ROOT,
        # Whatever the build would fetch, it would not get.
        env={**os.environ, "https_proxy": "http://127.0.0.1:9", "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=90,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    built = build(target)
    assert built.returncode == 0, built.stderr
    return target


def test_every_page_is_there(site: Path) -> None:
    pages = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    for page in pages:
        uri = page.relative_to(ROOT / "docs" if "docs" in page.parts else ROOT)
        name = "index.html" if page.name == "README.md" else f"{page.stem}.html"
        assert (site / uri.parent / name).exists(), uri


def test_links_to_files_outside_lead_to_their_text(site: Path) -> None:
    assert "source/env.example.txt" in (site / "guide.html").read_text()
    text = (site / "source" / "env.example.txt").read_text()
    assert text == (ROOT / ".env.example").read_text()


def test_no_page_fetches_anything_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    assert not [page.name for page in pages if FETCHED.search(page.read_text())]


@pytest.mark.parametrize("link", ["nowhere.md", "quickstart.md#nowhere", "../nowhere.py"])
def test_a_dead_link_fails_the_build(tmp_path: Path, link: str) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Page\n\n[link]({link})\n")
    (tmp_path / "docs" / "quickstart.md").write_text("# Quick\n")
    config = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[0]
    config = config.replace("docs/site_hooks.py", str(ROOT / "docs" / "site_hooks.py"))
    (tmp_path / "mkdocs.yml").write_text(config)
    built = build(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert built.returncode == 1
    assert "nowhere" in built.stderr

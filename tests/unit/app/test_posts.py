"""The sample posts: real text, the same on each machine with the same Python."""

from __future__ import annotations

import subprocess
import sys

import pytest

from app.posts import MIN_BODY_CHARS, SamplePost, sample_posts


@pytest.fixture(scope="module")
def posts() -> list[SamplePost]:
    return sample_posts()


def test_there_are_enough_to_search_in(posts: list[SamplePost]) -> None:
    assert 2000 < len(posts) < 4000


def test_each_has_a_title_a_body_and_its_module_as_author(posts: list[SamplePost]) -> None:
    for post in posts:
        assert post.title
        assert len(post.body) >= MIN_BODY_CHARS
        assert post.author == "builtins" or post.title.startswith(post.author)
        assert "\0" not in post.title + post.body


def test_titles_tell_posts_apart(posts: list[SamplePost]) -> None:
    assert len({post.title for post in posts}) == len(posts)


def test_well_known_modules_are_there(posts: list[SamplePost]) -> None:
    titles = {post.title for post in posts}
    assert "zlib — module" in titles
    assert "zlib.compress(data, /, level=-1, wbits=15)" in titles
    assert "random.randint(a, b)" in titles
    assert {"os.path", "urllib.parse", "json"} <= {post.author for post in posts}


def test_nothing_depends_on_the_process(posts: list[SamplePost]) -> None:
    program = "import app.posts; print(hash(tuple(app.posts.sample_posts())))"
    hashes = {
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": "1", "TZ": zone},
        ).stdout
        for zone in ("UTC", "Asia/Tokyo")
    }
    assert len(hashes) == 1
    assert not [post.title for post in posts if "0x" in post.title]


def test_importing_the_modules_says_and_opens_nothing() -> None:
    program = "import app.posts; app.posts.sample_posts()"
    result = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", program],
        check=True,
        capture_output=True,
        text=True,
    )
    assert (result.stdout, result.stderr) == ("", "")

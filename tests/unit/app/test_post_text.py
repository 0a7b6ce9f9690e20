"""The text that is embedded, and its hash."""

from __future__ import annotations

from hashlib import sha256

import pytest

from app.post_text import content_hash, embedded_text


@pytest.mark.parametrize(
    ("title", "body", "text"),
    [
        ("Title", "Body", "Title\n\nBody"),
        ("Title", None, "Title"),
        ("Title", "", "Title"),
        (None, "Body", "Body"),
        ("", "Body", "Body"),
        (None, None, ""),
        ("", "", ""),
        (" ", "Body", " \n\nBody"),
    ],
)
def test_null_and_empty_parts_are_left_out(title: str | None, body: str | None, text: str) -> None:
    assert embedded_text(title, body) == text


def test_the_hash_is_of_the_utf8_bytes_in_lower_case_hex() -> None:
    assert content_hash("grün") == sha256("grün".encode()).hexdigest()
    assert content_hash("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

"""The text of a post that is embedded, and its hash."""

from __future__ import annotations

from hashlib import sha256


def embedded_text(title: str | None, body: str | None) -> str:
    """Title and body joined by two newlines, null and empty parts left out."""
    return "\n\n".join(part for part in (title, body) if part)


def content_hash(text: str) -> str:
    """Lower-case hex SHA-256 of the text in UTF-8."""
    return sha256(text.encode()).hexdigest()

"""The text of a post that is embedded, and its hash."""

from __future__ import annotations

from hashlib import sha256

#: Python's white space. A text of nothing else is no text.
WHITE_SPACE = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)

_ESCAPED = "".join(rf"\u{ord(char):04x}" for char in WHITE_SPACE)

#: Whether the row `p` of `posts` has a text that is embedded, in SQL.
HAS_TEXT = rf"btrim(concat(p.title, p.body), E'{_ESCAPED}') <> ''"


def embedded_text(title: str | None, body: str | None) -> str:
    """Return title and body joined by two newlines, null and empty parts left out.

    It is empty where both are nothing but white space.
    """
    text = "\n\n".join(part for part in (title, body) if part)
    return "" if text.isspace() else text


def content_hash(text: str) -> str:
    """Return the lower-case hex SHA-256 of the text in UTF-8."""
    return sha256(text.encode()).hexdigest()

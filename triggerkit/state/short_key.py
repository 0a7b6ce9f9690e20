"""Keys as they are stored where an index has them."""

from __future__ import annotations

import hashlib
from typing import Final

#: Longest key in characters; longer ones are hashed.
MAX_KEY: Final = 500


def short_key(key: str) -> str:
    """Return the key as it is stored and compared: the SHA-256 of one that no index would take."""
    return key if len(key) <= MAX_KEY else hashlib.sha256(key.encode()).hexdigest()

"""What becomes of an endpoint's signing secrets by a word: made, exchanged, or given up."""

from __future__ import annotations

from typing import Final

from triggerkit.consumers.endpoints.model import Endpoint
from triggerkit.signature import new_secret

#: The words for a new endpoint, and for one that there is.
OF_NEW: Final = ("generate",)
OF_KNOWN: Final = ("generate", "rotate", "retire", "none")


def signed(word: str, before: Endpoint | None) -> str | None:
    """Return the signing secrets by a word: `generate` a new one, `rotate` to a new one beside that
    before, `retire` the one before, `none`. `before` is None of a new endpoint."""
    secrets = before.signing_secrets if before else ()
    if word == "generate":
        return new_secret()
    if word == "rotate":
        return ",".join((new_secret(), *secrets[:1]))
    return ",".join(secrets[:1]) or None if word == "retire" else None

"""What can go wrong in the reference app besides triggerkit's own errors."""

from __future__ import annotations

from triggerkit.errors import RetryAfter, TriggerkitError


class EmbeddingError(TriggerkitError):
    """The embeddings API's answer cannot be used."""


class NoVectorError(EmbeddingError):
    """The answer has no vector of a text, or none that is certainly its own: ask again for it."""


class EmbeddingsAwayError(RetryAfter):
    """The embeddings API is busy, away or refuses us: no text is to blame, and all runs wait."""


class NoEmbeddingsError(TriggerkitError):
    """There are no embeddings yet: start `triggerkit dev` here and wait for its backfill."""

"""What can go wrong in the reference app besides triggerkit's own errors."""

from __future__ import annotations

from triggerkit.errors import TriggerkitError


class EmbeddingError(TriggerkitError):
    """The embeddings API's answer cannot be used."""


class NoEmbeddingsError(TriggerkitError):
    """There are no embeddings yet: start `triggerkit dev` here and wait for its backfill."""

"""The static embedding model whose weights come with the package `wordllama`; works offline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import wordllama
from numpy.typing import NDArray
from tokenizers import Tokenizer

#: Longer texts are tokenized in pieces of this many characters, so that memory is bounded.
PIECE_CHARACTERS = 16_384
#: Pieces are tokenized together up to this many characters.
BATCH_CHARACTERS = 262_144

Vectors = NDArray[np.float32]


class Model:
    """The mean of its tokens' vectors stands for a text. Safe to call from several threads."""

    def __init__(self, token_vectors: Vectors, tokenizer: Tokenizer) -> None:
        self._token_vectors = token_vectors
        self._tokenizer = tokenizer
        # One long text would otherwise lengthen every other text of its batch.
        self._tokenizer.no_padding()

    @classmethod
    def load(cls, dimensions: int) -> Self:
        """Read weights and tokenizer from the installed package, in about 0.3 s.

        Raises:
            FileNotFoundError: the package lacks the weights for `dimensions`.
        """
        inference = wordllama.WordLlama.load(
            config="l2_supercat",
            dim=dimensions,
            cache_dir=Path(wordllama.__file__).parent,
            disable_download=True,
        )
        return cls(inference.embedding, inference.tokenizer)

    def embed(self, texts: list[str], dimensions: int) -> tuple[Vectors, int]:
        """Embed texts; returns one row of length 1 per text, and the number of tokens.

        With fewer `dimensions` than the model has, rows are cut, then brought to length 1 again.
        """
        sums = np.zeros((len(texts), self._token_vectors.shape[1]), dtype=np.float32)
        tokens = 0
        for batch in _batches(texts):
            pieces = [piece for _, piece in batch]
            encodings = self._tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
            for (index, _), encoding in zip(batch, encodings, strict=True):
                ids = np.array(encoding.ids, dtype=np.intp)
                sums[index] += self._token_vectors[ids].sum(axis=0)
                tokens += len(ids)
        cut = np.ascontiguousarray(sums[:, :dimensions])
        cut /= np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return cut, tokens


def _batches(texts: list[str]) -> Iterator[list[tuple[int, str]]]:
    """Pieces of texts, each with the index of its text, in batches of bounded size."""
    batch: list[tuple[int, str]] = []
    characters = 0
    for index, text in enumerate(texts):
        for piece in _pieces(text):
            if batch and characters + len(piece) > BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
            batch.append((index, piece))
            characters += len(piece)
    if batch:
        yield batch


def _pieces(text: str) -> Iterator[str]:
    """Cut a long text at spaces: the tokenizer begins every text with one, so no token changes."""
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        space = text.rfind(" ", start + 1, start + PIECE_CHARACTERS)
        end = space if space > 0 else start + PIECE_CHARACTERS
        yield text[start:end]
        start = end + 1 if space > 0 else end
    yield text[start:]

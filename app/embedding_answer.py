"""The embeddings API's answer, its vectors as pgvector takes them, each checked by itself."""

from __future__ import annotations

from array import array
from math import isfinite
from struct import pack
from typing import Annotated, Any

from pgvector import Vector
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

from app.errors import EmbeddingError, NoVectorError


class Item(BaseModel):
    """One embedding: the base64 of little-endian float4s, or the numbers, as some servers send."""

    model_config = ConfigDict(val_json_bytes="base64", hide_input_in_errors=True)

    index: int
    embedding: Annotated[bytes | list[float], Field(union_mode="left_to_right")]

    def vector(self, dimensions: int) -> Vector:
        """Return the embedding as pgvector takes it.

        Raises:
            ValueError: the bytes are not float4s.
            EmbeddingError: it has other dimensions, or numbers that are not finite.
        """
        floats = array("f", self.embedding)
        if len(floats) != dimensions:
            raise EmbeddingError(
                f"the API answered a vector of {len(floats)} dimensions, but EMBEDDING_DIMENSIONS "
                f"is {dimensions}; correct that setting"
            )
        # The sum of float4s is finite if each of them is: it is of doubles.
        if not isfinite(sum(floats)):
            raise EmbeddingError("the API answered a vector with NaN or infinity in it")
        floats.byteswap()
        # pgvector's binary format: the dimensions and 0 as big-endian int16, then the float4s.
        return Vector.from_binary(pack(">HH", len(floats), 0) + floats.tobytes())


class Answer(BaseModel):
    """What counts of the API's answer."""

    data: list[Item]


def read_vectors(content: bytes, expected: int, dimensions: int) -> list[Vector | EmbeddingError]:
    """Return the vector of each of `expected` texts, by their places, or why it has none.

    A text that the answer leaves out, or names twice, has a `NoVectorError`.

    Raises:
        EmbeddingError: the answer as a whole holds no embeddings. Of a single text it could as well
            be the text's own fault.
    """
    vectors: list[Vector | EmbeddingError] = [
        NoVectorError("the API answered no vector to this text") for _ in range(expected)
    ]
    seen: set[int] = set()
    for item in _items(content):
        if not 0 <= item.index < expected:
            continue
        if item.index in seen:
            vectors[item.index] = NoVectorError("the API answered two vectors to this text")
            continue
        seen.add(item.index)
        try:
            vectors[item.index] = item.vector(dimensions)
        except EmbeddingError as error:
            vectors[item.index] = error
        except ValueError:
            vectors[item.index] = NoVectorError("the API's vector of this text cannot be read")
    if expected > 1 and not seen:
        raise EmbeddingError("the embeddings API's answer holds no embeddings")
    return vectors


def _items(content: bytes) -> list[Item]:
    try:
        return Answer.model_validate_json(content).data
    except ValidationError as error:
        try:
            items = from_json(content)["data"]
            return [item for item in map(_item, items) if item is not None]
        except (ValueError, TypeError, KeyError):
            raise EmbeddingError("the embeddings API's answer holds no embeddings") from error


def _item(given: Any) -> Item | None:
    """Read one item where not all of them can be read; None when it is the one that cannot."""
    try:
        return Item.model_validate_json(to_json(given))
    except ValidationError:
        return None

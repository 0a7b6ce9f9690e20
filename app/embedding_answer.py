"""The embeddings API's answer, its vectors as pgvector takes them."""

from __future__ import annotations

from array import array
from struct import pack
from typing import Annotated

from pgvector import Vector
from pydantic import BaseModel, ConfigDict, Field


class Item(BaseModel):
    """One embedding: the base64 of little-endian float4s, or the numbers, as some servers send."""

    model_config = ConfigDict(val_json_bytes="base64", hide_input_in_errors=True)

    index: int
    embedding: Annotated[bytes | list[float], Field(union_mode="left_to_right")]

    def vector(self) -> Vector:
        """The embedding as pgvector takes it.

        Raises:
            ValueError: the bytes are not float4s.
        """
        if isinstance(self.embedding, list):
            return Vector(self.embedding)
        floats = array("f", self.embedding)
        floats.byteswap()
        # pgvector's binary format: the dimensions and 0 as big-endian int16, then the float4s.
        return Vector.from_binary(pack(">HH", len(floats), 0) + floats.tobytes())


class Answer(BaseModel):
    """What counts of the API's answer."""

    data: list[Item]

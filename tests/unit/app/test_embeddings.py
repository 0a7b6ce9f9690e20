"""How texts are grouped into requests, and vectors are read from answers."""

from __future__ import annotations

from array import array
from base64 import b64encode

import orjson
import pytest

from app.embedding_answer import Item
from app.embeddings import (
    MAX_INPUTS,
    MAX_REQUEST_BYTES,
    Input,
    split_into_requests,
)


def test_a_request_holds_no_more_inputs_than_the_api_takes() -> None:
    inputs = [Input(str(n), "x") for n in range(MAX_INPUTS * 2 + 1)]
    requests = list(split_into_requests(inputs))
    assert [len(request) for request in requests] == [MAX_INPUTS, MAX_INPUTS, 1]
    assert [one for request in requests for one in request] == inputs


@pytest.mark.parametrize("text", ["x" * 20_000, "é" * 10_000])
def test_a_request_holds_no_more_bytes_than_the_api_takes(text: str) -> None:
    inputs = [Input(str(n), text) for n in range(100)]
    requests = list(split_into_requests(inputs))
    assert [one for request in requests for one in request] == inputs
    assert all(sum(len(text.encode()) for _, text in r) <= MAX_REQUEST_BYTES for r in requests)
    assert len(requests) == 4


def test_nothing_makes_no_request() -> None:
    assert list(split_into_requests([])) == []


def test_base64_and_floats_give_the_same_vector() -> None:
    numbers = [0.5, -1.25, 3.0]
    little_endian = b64encode(array("f", numbers).tobytes()).decode()
    for embedding in (little_endian, numbers):
        item = Item.model_validate_json(orjson.dumps({"index": 0, "embedding": embedding}))
        assert item.vector(3).to_list() == numbers


@pytest.mark.parametrize("broken", ["AAA", "AAAAAAA=", "not base64!", None, 5])
def test_what_is_no_vector_is_refused(broken: object) -> None:
    with pytest.raises(ValueError):
        Item.model_validate_json(orjson.dumps({"index": 0, "embedding": broken})).vector(3)

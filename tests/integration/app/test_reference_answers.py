"""Answers of the embeddings API that are not as they should be: only the text concerned fails."""

from __future__ import annotations

import math
from array import array
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from app.errors import EmbeddingError, EmbeddingsAwayError, NoVectorError
from tests.integration.app.openai_server import OpenAIServer, vectors_by_hash
from tests.integration.app.reference import DIMENSIONS, change, counts, embedded, post, run

Data = list[Any]

TEXTS = {post_id: f"text {post_id}" for post_id in range(1, 6)}


def batch(database: psycopg.Connection[Any]) -> list[Any]:
    for post_id, text in TEXTS.items():
        post(database, post_id, text)
    return [change(post_id, text) for post_id, text in TEXTS.items()]


def item(data: Data, index: int) -> dict[str, Any]:
    return next(one for one in data if one["index"] == index)


def with_vector(data: Data, index: int, floats: list[float]) -> Data:
    item(data, index)["embedding"] = b64encode(array("f", floats).tobytes()).decode()
    return data


def without(data: Data, index: int) -> Data:
    return [one for one in data if one["index"] != index]


def has_own_vectors(database: psycopg.Connection[Any]) -> bool:
    """Whether each post that has a vector has that of its own text."""
    rows = database.execute("SELECT post_id, embedding::text FROM post_embeddings").fetchall()
    for post_id, stored in rows:
        [own] = vectors_by_hash([TEXTS[post_id]], DIMENSIONS)
        if [float(number) for number in stored.strip("[]").split(",")] != own.tolist():
            return False
    return True


LEFT_OUT: dict[str, Callable[[Data], Data]] = {
    "fewer": lambda data: without(data, 2),
    "a doubled index": lambda data: [*without(data, 2), {**item(data, 2)}, item(data, 2)],
    "two for one, none for another": lambda data: [
        *without(without(data, 2), 1), {**item(data, 1)}, {**item(data, 2), "index": 1},
    ],
    "a missing index": lambda data: [*without(data, 2), {"embedding": item(data, 2)["embedding"]}],
    "an index of none": lambda data: [*without(data, 2), {**item(data, 2), "index": 99}],
    "a negative index": lambda data: [*without(data, 2), {**item(data, 2), "index": -1}],
    "no vector": lambda data: [*without(data, 2), {"index": 2, "embedding": None}],
    "no base64": lambda data: [*without(data, 2), {"index": 2, "embedding": "not base64!"}],
    "no item": lambda data: [*without(data, 2), None],
}  # fmt: skip


@pytest.mark.parametrize("spoil", LEFT_OUT.values(), ids=LEFT_OUT.keys())
def test_a_text_that_the_answer_leaves_out_is_tried_again_alone(
    database: psycopg.Connection[Any], api: OpenAIServer, spoil: Callable[[Data], Data]
) -> None:
    api.spoil = spoil
    changes = batch(database)
    result = run(*changes)
    failed = [failure.change.record.id for failure in result.failed]
    assert 3 in failed
    assert all(isinstance(failure.error, NoVectorError) for failure in result.failed)
    assert not any(failure.permanent for failure in result.failed)
    assert set(embedded(database)) == set(TEXTS) - set(failed)
    assert has_own_vectors(database)
    api.spoil = lambda data: data
    again = run(*(one for one in changes if one.record.id in failed))
    assert counts(again) == {"embedded": len(failed), "inputs": len(failed)}
    assert has_own_vectors(database)
    paid_again = sorted(api.inputs[len(TEXTS) :])
    assert paid_again == [TEXTS[post_id] for post_id in failed]


WRONG = {
    "NaN": [math.nan, *[0.5] * (DIMENSIONS - 1)],
    "infinity": [math.inf, *[0.5] * (DIMENSIONS - 1)],
    "both infinities": [math.inf, -math.inf, *[0.5] * (DIMENSIONS - 2)],
    "fewer dimensions": [0.5] * 8,
    "more dimensions": [0.5] * (DIMENSIONS + 1),
    "no dimension": [],
}


@pytest.mark.parametrize("floats", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_vector_fails_its_text_alone_and_for_good(
    database: psycopg.Connection[Any], api: OpenAIServer, floats: list[float]
) -> None:
    api.spoil = lambda data: with_vector(data, 2, floats)
    result = run(*batch(database))
    [failure] = result.failed
    assert (failure.change.record.id, failure.permanent) == (3, True)
    assert isinstance(failure.error, EmbeddingError)
    assert set(embedded(database)) == {1, 2, 4, 5}
    assert sorted(api.inputs) == list(TEXTS.values())


def test_numbers_too_large_for_a_vector_are_infinity(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    api.only_floats = True

    def spoil(data: Data) -> Data:
        item(data, 2)["embedding"] = [1e300, *[0.5] * (DIMENSIONS - 1)]
        return data

    api.spoil = spoil
    [failure] = run(*batch(database)).failed
    assert failure.change.record.id == 3


def test_a_wrong_dimension_names_the_setting(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    api.dimensions = 8
    post(database, 1, "text")
    [failure] = run(change(1, "text")).failed
    assert "8 dimensions, but EMBEDDING_DIMENSIONS is 256" in str(failure.error)


@pytest.mark.parametrize("data", [[], None, "no", {}, [None] * 5])
def test_an_answer_without_any_vector_is_waited_for(
    database: psycopg.Connection[Any], api: OpenAIServer, data: Any
) -> None:
    api.spoil = lambda _: data
    with pytest.raises(EmbeddingsAwayError, match="holds no embeddings"):
        run(*batch(database))


def test_an_answer_without_the_vector_of_a_text_that_is_alone_blames_the_text(
    database: psycopg.Connection[Any], api: OpenAIServer
) -> None:
    api.spoil = lambda _: []
    post(database, 1, "text")
    [failure] = run(change(1, "text")).failed
    assert (failure.change.record.id, failure.permanent) == (1, False)


@pytest.mark.parametrize("space", [" ", "\n\t\r ", "\u00a0", "\u3000\u2003", "\x1c\x85"])
def test_a_text_of_white_space_is_no_text(
    database: psycopg.Connection[Any], api: OpenAIServer, space: str
) -> None:
    for title, body in ((space, None), (None, space), (space, space)):
        post(database, 1, "text")
        run(change(1, "text"))
        assert set(embedded(database)) == {1}
        post(database, 1, title, body)
        assert counts(run(change(1, title, body, at=200))) == {"removed": 1}
        assert embedded(database) == {}
        # A change that comes before it finds the post without text.
        assert counts(run(change(1, "older", at=150))) == {"gone": 1}
    assert api.inputs == ["text"] * 3

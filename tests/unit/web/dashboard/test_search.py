"""What somebody types into a box, as words."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerkit.web.dashboard.search import words_of, written


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('public."a.b" 1 "x y"', ['public."a.b"', "1", "x y"]),
        ('public."my table" 1', ['public."my table"', "1"]),
        ("'public.\"a.b\"' 1 'x y'", ['public."a.b"', "1", "x y"]),
        ("public.files C:\\temp\\new", ["public.files", "C:\\temp\\new"]),
        ("public.people O'Brien d\"or", ["public.people", "O'Brien", 'd"or']),
        ("public.people ''", ["public.people", ""]),
        ('table:public."a.b" tag:"by hand"', ['table:public."a.b"', "tag:by hand"]),
        ("status:failed 'unfinished", ["status:failed", "'unfinished"]),
        ("  ", []),
    ],
)
def test_quotes_hold_a_value_together_and_are_a_part_of_it_elsewhere(
    text: str, words: list[str]
) -> None:
    assert words_of(text) == words


@given(st.lists(st.text(min_size=1)))
def test_what_a_shell_takes_as_words_is_taken_so(values: list[str]) -> None:
    text = " ".join(f"'{value}'" for value in values if "'" not in value)
    assert words_of(text) == shlex.split(text)


@given(st.text(min_size=1))
def test_a_filter_that_is_written_is_read_as_it_was(value: str) -> None:
    assert words_of(written({"key": value})) == [f"key:{value}"]

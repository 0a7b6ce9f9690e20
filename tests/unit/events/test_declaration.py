"""`[events]` in triggerkit.toml: what fits is read, and what does not is named by its path."""

from __future__ import annotations

from typing import Any

import pytest

from triggerkit.errors import ConfigurationError
from triggerkit.events.declaration import read_events


def test_nothing_is_declared_without_the_table() -> None:
    assert read_events({}) is None


def test_tables_are_read_as_those_of_consumers() -> None:
    events = read_events({"tables": ["posts", "public.posts", 'crm."a.b"']})
    assert events is not None
    assert [str(name) for name in events.table_names or ()] == ["public.posts", 'crm."a.b"']


def test_a_star_stands_for_all_tables() -> None:
    events = read_events({"tables": "*", "database": "blog"})
    assert events is not None
    assert (events.table_names, events.database) == (None, "blog")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, None),
        ({"tables": []}, "events.tables: must be a list of tables"),
        ({"tables": "posts"}, "events.tables: must be a list of tables"),
        ({"tables": [1]}, "events.tables: must be a list of tables"),
        ({"tables": ["a."]}, "events.tables: 'a.' is not a table"),
        ({"table": ["a"], "tables": "*"}, "events.table: is not known; did you mean tables?"),
        ({"tables": "*", "database": "a b"}, "events.database: it stands in the names of topics"),
        ({"tables": "*", "partitions": 0}, "events.partitions: Input should be greater than"),
        ({"tables": "*", "too_large": "drop"}, "events.too_large: Input should be 'block'"),
    ],
)
def test_what_does_not_fit_is_named(given: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert read_events(given) is None
        return
    with pytest.raises(ConfigurationError) as raised:
        read_events(given)
    assert message in str(raised.value)

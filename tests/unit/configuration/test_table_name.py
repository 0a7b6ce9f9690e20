"""Names of tables as people write them, and as they are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerkit.configuration.table_name import TableName
from triggerkit.consumers.definition import changes
from triggerkit.errors import ConfigurationError

PARTS = st.text(alphabet='ab.":[% é\n', min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("text", "schema", "name"),
    [
        ("posts", "public", "posts"),
        ("Shop.Items", "Shop", "Items"),
        ('"Shop"."Items"', "Shop", "Items"),
        ('"a.b"', "public", "a.b"),
        ('public."a.b"', "public", "a.b"),
        ('"a.b".c', "a.b", "c"),
        ("a.b.c", "a.b", "c"),
        ('"a"".""b"', "public", 'a"."b'),
        ('public.we"ird', "public", 'we"ird'),
        ("public.50 %", "public", "50 %"),
    ],
)
def test_a_name_is_read_as_postgres_writes_it(text: str, schema: str, name: str) -> None:
    assert TableName.parse(text) == (schema, name)


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", '"a', 'public."a', '""', 'a.""', '"a.b'])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a table"):
        TableName.parse(text)


@given(PARTS, PARTS)
def test_every_name_is_read_as_it_was_written(schema: str, name: str) -> None:
    table = TableName(schema, name)
    assert TableName.parse(str(table)) == table
    assert changes(str(table)).table_names == (table,)
    assert changes(str(table)).tables == (str(table),)


def test_plain_names_have_no_quotes() -> None:
    assert str(TableName("Shop", "order lines")) == "Shop.order lines"
    assert str(TableName("public", "a.b")) == 'public."a.b"'

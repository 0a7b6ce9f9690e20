"""Models of rows, written from what is known of a table's columns."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from triggerkit.replication.columns import ColumnType, TableColumn, TableColumns
from triggerkit.replication.identifiers import attribute_names, class_name
from triggerkit.replication.models import Style, write_models

STYLES = get_args(Style)

TEXT, INT8 = ColumnType("text"), ColumnType("int8")

#: Names that cannot be attributes as they stand, or that hide something.
DIFFICULT = [
    "class", "two words", "2nd", "date", "dt", "str", "json", "copy", "model_config", "_private",
    "größe", "ﬁne", "Any", "", 'qu"ote', "back\\slash", "two_words", "class_", "schema", "type",
    "#{}", "self", "dict", "Field",
]  # fmt: skip

HOSTILE = 'ends """ here\n    import os; os.abort() \\'


def table(*columns: TableColumn, name: str = "posts", comment: str | None = None) -> TableColumns:
    return TableColumns("public", name, columns, comment)


def loaded(text: str) -> dict[str, Any]:
    """The names of a written module."""
    module = sys.modules["written"] = ModuleType("written")
    try:
        exec(compile(text, "written.py", "exec", dont_inherit=True), vars(module))
    finally:
        del sys.modules["written"]
    return vars(module)


@pytest.mark.parametrize(
    ("name", "singular"),
    [
        ("posts", "Post"), ("post_categories", "PostCategory"), ("addresses", "Address"),
        ("boxes", "Box"), ("statuses", "Status"), ("houses", "House"), ("status", "Status"),
        ("analysis", "Analysis"), ("news", "News"), ("branches", "Branch"), ("is", "Is"),
        ("UserAccounts", "UserAccount"), ("2024 orders", "Table2024Order"), ("fields", "FieldRow"),
        ("s", "S"), ("日本", "日本"), ("--", "Table"), ("cases", "Case"),
    ],
)  # fmt: skip
def test_a_class_is_named_by_one_row_of_its_table(name: str, singular: str) -> None:
    assert class_name(name) == singular


def test_attributes_keep_the_names_of_their_columns_where_python_lets_them() -> None:
    assert attribute_names(["id", "type", "updated_at", "date", "updatedAt"]) == [
        "id", "type", "updated_at", "date", "updatedAt",
    ]  # fmt: skip
    names = attribute_names(DIFFICULT)
    assert len(set(names)) == len(DIFFICULT)
    assert all(name.isidentifier() for name in names)
    assert (names[0], names[1], names[2]) == ("class__2", "two_words_2", "column_2nd")


@pytest.mark.parametrize("style", STYLES)
def test_difficult_names_are_read_by_what_the_columns_are_called(style: Style) -> None:
    columns = [TableColumn(name, TEXT, is_nullable=i % 2 == 0) for i, name in enumerate(DIFFICULT)]
    kind = loaded(write_models([table(*columns)], style))["Post"]
    record = {name: f"value of {name}" for name in DIFFICULT}
    found = TypeAdapter(kind).validate_python(record)
    values = found if style == "typeddict" else vars(found)
    assert sorted(values.values()) == sorted(record.values())


@pytest.mark.parametrize("style", STYLES)
def test_comments_of_the_database_never_become_code(style: Style) -> None:
    column = TableColumn('x"""', TEXT, True, comment=HOSTILE)
    labels = ColumnType(None, 0, 'mo"od', ('"', "\\", "a\nb", "x" * 80))
    moods = [TableColumn("mood", labels, False), TableColumn("id", INT8, False, comment=HOSTILE)]
    text = write_models([table(column, *moods, comment=HOSTILE)], style)
    found = ast.parse(text)
    assert not [n for n in ast.walk(found) if isinstance(n, ast.Attribute) and n.attr == "abort"]
    kind = loaded(text)["Post"]
    given = {'x"""': None, "mood": "a\nb", "id": 1}
    assert TypeAdapter(kind).validate_python(given)
    with pytest.raises(ValueError, match="mood"):
        TypeAdapter(kind).validate_python({**given, "mood": "c"})


def test_two_tables_of_one_name_have_their_schemas_in_the_classes() -> None:
    other = TableColumns("audit", "posts", (TableColumn("id", INT8, False),))
    names = loaded(write_models([table(TableColumn("id", INT8, False)), other]))
    assert names["PublicPost"] is not names["AuditPost"]


def test_an_enum_is_written_once_and_by_another_name_than_a_class() -> None:
    kind = ColumnType(None, 0, "post", ("a", "b"))
    again = ColumnType(None, 2, "post", ("a", "b"))
    columns = [TableColumn("x", kind, False), TableColumn("y", again, True)]
    text = write_models([table(*columns)])
    assert text.count("Literal[") == 1
    assert "y: list[list[Post_2 | None]] | None = None" in text
    loaded(text)


@pytest.mark.parametrize("style", STYLES)
def test_what_is_written_passes_the_linter_and_stays_as_it_is_when_formatted(
    style: Style, tmp_path: Path
) -> None:
    columns = [
        TableColumn(name, TEXT, is_nullable=i % 2 == 0, comment="What it is, " * (i % 3 * 10))
        for i, name in enumerate([*DIFFICULT, "c" * 63, "ä " * 20])
    ]
    text = write_models([table(*columns), table(columns[0], name="others", comment="x")], style)
    written = tmp_path / "written.py"
    written.write_text(text)
    ruff = str(Path(sys.executable).with_name("ruff"))
    for arguments in (["check", "--select", "E,F,I,UP,B,SIM"], ["format", "--diff"]):
        command = [ruff, *arguments, "--isolated", "--target-version=py311", str(written)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}{text}"

"""Writes the Python types of tables' rows, as messages carry them: `triggerkit models`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from triggerkit.replication.columns import ColumnType, TableColumn, TableColumns
from triggerkit.replication.identifiers import (
    attribute_names,
    class_name,
    is_plain,
    quoted,
    unique,
)

Style = Literal["pydantic", "dataclass", "typeddict"]

#: Characters in a line, as formatters have it where nothing else is said.
WIDTH: Final = 88

#: The annotation by the name of the built-in type; all else is text, as `triggerkit.values` says.
ANNOTATIONS: Final = {
    "bool": "bool",
    "int2": "int",
    "int4": "int",
    "int8": "int",
    "oid": "int",
    "float4": "float",
    "float8": "float",
    "numeric": "Numeric",
    "timestamptz": "dt.datetime",
    "timestamp": "dt.datetime",
    "date": "dt.date",
    "time": "dt.time",
    "uuid": "UUID",
    "json": "Any",
    "jsonb": "Any",
}

_BEYOND = (
    "Text that no datetime takes, such as infinity or a year before Christ, is refused: give a "
    "column that has it the type str."
)


def write_models(tables: Sequence[TableColumns], style: Style = "pydantic") -> str:
    """Return the source of a module with a type for each of `tables`, ready for mypy and a
    formatter."""
    return _Module(tables, style).text()


@dataclass(frozen=True, slots=True)
class _Field:
    """A column as it is written: `name` is the attribute's."""

    column: TableColumn
    name: str
    annotation: str

    @property
    def is_optional(self) -> bool:
        """Return whether it has the default None."""
        return self.column.is_nullable or self.column.is_generated

    @property
    def alias(self) -> str | None:
        """The column's own name where the attribute has another."""
        return None if self.name == self.column.name else quoted(self.column.name)


class _Module:
    def __init__(self, tables: Sequence[TableColumns], style: Style) -> None:
        self._tables = tables
        self._style = style
        names = [class_name(table.name) for table in tables]
        taken: set[str] = set()
        self._class_names = [
            unique(class_name(t.schema) + name if names.count(name) > 1 else name, taken)
            for t, name in zip(tables, names, strict=True)
        ]
        self._taken = taken
        self._enums: dict[tuple[str, tuple[str, ...]], str] = {}
        self._used: set[str] = set()

    def text(self) -> str:
        """Return the whole module."""
        write = {"pydantic": _model, "dataclass": _dataclass, "typeddict": _typed_dict}[self._style]
        fields = [self._fields(table) for table in self._tables]
        body = "\n\n\n".join(
            "\n".join(write(name, table, found))
            for name, table, found in zip(self._class_names, self._tables, fields, strict=True)
        )
        imports = self._imports([field for found in fields for field in found])
        parts = ["\n".join(self._docstring()), "\n".join(imports), self._aliases()]
        head = "\n\n".join(part for part in parts if part)
        # As formatters want it: two lines before a class, one between imports and other code.
        is_class = self._enums or "Numeric" in self._used or not body.startswith("#")
        space = "\n\n\n" if is_class else "\n\n"
        return f"{head}{space}{body}\n"

    def _fields(self, table: TableColumns) -> list[_Field]:
        columns = table.columns
        names = [column.name for column in columns]
        if self._style != "typeddict":
            names = attribute_names(names)
        return [
            _Field(column, name, self._annotation(column.type))
            for column, name in zip(columns, names, strict=True)
        ]

    def _annotation(self, kind: ColumnType) -> str:
        found = ANNOTATIONS.get(kind.name or "", "str")
        if kind.enum is not None:
            key = (kind.enum, kind.labels)
            if key not in self._enums:
                self._enums[key] = unique(class_name(kind.enum, singular=False), self._taken)
            found = self._enums[key]
        self._used.add(found)
        for depth in range(kind.dimensions):
            found = f"list[{found if depth else _or_none(found)}]"
        return found

    def _aliases(self) -> str:
        lines = []
        if "Numeric" in self._used:
            # Postgres has NaN and infinity in a numeric too.
            lines.append("Numeric = Annotated[Decimal, AllowInfNan()]")
        for (_, labels), name in self._enums.items():
            written = [quoted(label) for label in labels]
            line = f"{name} = Literal[{', '.join(written)}]"
            if len(line) > WIDTH:
                line = "\n".join([f"{name} = Literal[", *(f"    {w}," for w in written), "]"])
            lines.append(line)
        return "\n".join(lines)

    def _imports(self, fields: list[_Field]) -> list[str]:
        is_numeric = "Numeric" in self._used
        has_alias = any(field.alias is not None for field in fields)
        is_typed_dict = self._style == "typeddict"
        standard = {
            "dataclasses": {"dataclass": self._style == "dataclass"},
            "decimal": {"Decimal": is_numeric},
            "typing": {
                "Annotated": is_numeric or (self._style == "dataclass" and has_alias),
                "Any": "Any" in self._used,
                "Literal": bool(self._enums),
                "NotRequired": is_typed_dict and any(f.column.is_generated for f in fields),
            },
            "uuid": {"UUID": "UUID" in self._used},
        }
        others = {
            "pydantic": {
                "AllowInfNan": is_numeric,
                "BaseModel": self._style == "pydantic",
                "Field": has_alias and not is_typed_dict,
            },
            # Before Python 3.12 pydantic takes no TypedDict of `typing`.
            "typing_extensions": {
                "TypedDict": is_typed_dict,
            },
        }
        first = [*(["import datetime as dt"] if self._has_times else []), *_imported(standard)]
        second = _imported(others)
        return [*first, *([""] if first and second else []), *second]

    @property
    def _has_times(self) -> bool:
        return any(used.startswith("dt.") for used in self._used)

    def _docstring(self) -> list[str]:
        listed = ", ".join(f"{table.schema}.{table.name}" for table in self._tables)
        text = f"Rows of {listed} as messages have them; written by `triggerkit models`."
        return _docstring("", text, *([_BEYOND] if self._has_times else []))


def _model(name: str, table: TableColumns, fields: list[_Field]) -> list[str]:
    lines = [f"class {name}(BaseModel):", *_docstring("    ", _about(table)), ""]
    for field in fields:
        lines += _comments(field)
        annotation = _or_none(field.annotation) if field.is_optional else field.annotation
        default = "default=None, " if field.is_optional else ""
        if field.alias is not None:
            lines += _assigned(field.name, annotation, f"{default}alias={field.alias}")
        else:
            lines.append(f"    {field.name}: {annotation}{' = None' if default else ''}")
    return lines


def _dataclass(name: str, table: TableColumns, fields: list[_Field]) -> list[str]:
    lines = ["@dataclass(kw_only=True)", f"class {name}:"]
    lines += [*_docstring("    ", _about(table)), ""]
    for field in fields:
        lines += _comments(field)
        annotation = _or_none(field.annotation) if field.is_optional else field.annotation
        end = " = None" if field.is_optional else ""
        if field.alias is not None:
            parts = f"{annotation}, Field(alias={field.alias})"
            annotation = f"Annotated[{parts}]"
            if len(f"    {field.name}: {annotation}{end}") > WIDTH:
                lines += [f"    {field.name}: Annotated[", f"        {parts}", f"    ]{end}"]
                continue
        lines.append(f"    {field.name}: {annotation}{end}")
    return lines


def _typed_dict(name: str, table: TableColumns, fields: list[_Field]) -> list[str]:
    def annotation(field: _Field) -> str:
        found = _or_none(field.annotation) if field.is_optional else field.annotation
        return f"NotRequired[{found}]" if field.column.is_generated else found

    if all(is_plain(field.name) for field in fields):
        lines = [f"class {name}(TypedDict):", *_docstring("    ", _about(table)), ""]
        for field in fields:
            lines += [*_comments(field), f"    {field.name}: {annotation(field)}"]
        return lines
    # Keys that are no names of attributes can be given in this form alone.
    lines = [*_wrapped(_about(table), "# "), f"{name} = TypedDict("]
    lines += [f"    {quoted(name)},", "    {"]
    for field in fields:
        lines += _comments(field, "        # ")
        lines.append(f"        {quoted(field.name)}: {annotation(field)},")
    return [*lines, "    },", ")"]


def _imported(modules: dict[str, dict[str, bool]]) -> list[str]:
    found = {
        module: [n for n, wanted in names.items() if wanted] for module, names in modules.items()
    }
    return [f"from {module} import {', '.join(names)}" for module, names in found.items() if names]


def _or_none(annotation: str) -> str:
    return annotation if annotation == "Any" else f"{annotation} | None"


def _assigned(name: str, annotation: str, default: str) -> list[str]:
    line = f"    {name}: {annotation} = Field({default})"
    if len(line) <= WIDTH:
        return [line]
    return [f"    {name}: {annotation} = Field(", f"        {default}", "    )"]


def _comments(field: _Field, prefix: str = "    # ") -> list[str]:
    lines = _wrapped(field.column.comment or "", prefix)
    if field.column.is_generated:
        lines += [f"{prefix}Generated: messages have it only where the server publishes it."]
    return lines


def _about(table: TableColumns) -> str:
    return table.comment or f"A row of {table.schema}.{table.name}."


def _docstring(indent: str, *paragraphs: str) -> list[str]:
    lines: list[str] = []
    for text in paragraphs:
        wrapped = textwrap.wrap(_printable(text), WIDTH - len(indent) - 6) or ["A row."]
        # Escaped after it is wrapped, so that no escape is cut in two.
        found = [indent + w.replace("\\", "\\\\").replace('"', '\\"') for w in wrapped]
        lines += ["", *found] if lines else found
    lines[0] = f'{indent}"""{lines[0].removeprefix(indent)}'
    if len(lines) == 1:
        return [f'{lines[0]}"""']
    return [*lines, f'{indent}"""']


def _wrapped(text: str, prefix: str) -> list[str]:
    return [f"{prefix}{line}" for line in textwrap.wrap(_printable(text), WIDTH - len(prefix))]


def _printable(text: str) -> str:
    """Return one line of `text`: a comment of the database never becomes code."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())

"""A row as the task's type: whole, or with the columns that the WAL carries."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import MISSING, fields, is_dataclass
from functools import cached_property
from typing import Annotated, Any, NamedTuple, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from triggerkit.errors import FieldProblem, InvalidPayload
from triggerkit.message import UNCHANGED


class _Column(NamedTuple):
    name: str
    attribute: str
    adapter: TypeAdapter[Any]


class RecordType:
    """Validates rows as a pydantic model, dataclass, TypedDict or dict."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._adapter: TypeAdapter[Any] = TypeAdapter(kind)
        self._list_adapter: TypeAdapter[list[Any]] = TypeAdapter(list[kind])

    def parse_all(self, rows: list[Any]) -> list[Any]:
        """`parse` of whole rows, in a third of the time.

        Raises:
            InvalidPayload: one does not fit.
        """
        try:
            return self._list_adapter.validate_python(rows)
        except ValidationError:
            return [self.parse(row) for row in rows]

    def parse(
        self, known: dict[str, Any], *, unchanged: Collection[str] = (), partial: bool = False
    ) -> Any:
        """Return the row whose `known` columns are given.

        Columns named in `unchanged` become `UNCHANGED`; when `partial`, others may lack too: the
        record then has no attribute (or its default) where a column is not known.

        Raises:
            InvalidPayload: a column does not fit, or lacks; each `loc` begins with "record".
        """
        try:
            record = self._adapter.validate_python(known)
        except ValidationError as error:
            problems = [
                FieldProblem(("record", *e["loc"]), e["msg"])
                for e in error.errors(include_url=False)
                if not (
                    e["type"] == "missing"
                    and len(e["loc"]) == 1
                    and (partial or e["loc"][0] in unchanged)
                )
            ]
            if problems:
                raise InvalidPayload(problems) from None
            record = self._construct(known)
        return self._mark(record, unchanged) if unchanged else record

    def _construct(self, known: dict[str, Any]) -> Any:
        values = {
            column.attribute: column.adapter.validate_python(known[column.name])
            for column in self._columns
            if column.name in known
        }
        if _is_model(self._kind):
            return self._kind.model_construct(**values)
        return _dataclass_of(self._kind, values) if is_dataclass(self._kind) else values

    def _mark(self, record: Any, unchanged: Collection[str]) -> Any:
        names = [column.attribute for column in self._columns if column.name in unchanged]
        if isinstance(record, dict):
            return {**record, **dict.fromkeys(names if self._columns else unchanged, UNCHANGED)}
        if isinstance(record, BaseModel):
            return record.model_copy(update=dict.fromkeys(names, UNCHANGED))
        for name in names:
            object.__setattr__(record, name, UNCHANGED)
        return record

    @cached_property
    def _columns(self) -> list[_Column]:
        """The columns the type names; none when it takes any."""
        kind = self._kind
        if _is_model(kind):
            return [
                _Column(_column_name(name, info), name, TypeAdapter(_constrained(info)))
                for name, info in kind.model_fields.items()
            ]
        if is_dataclass(kind):
            hints = get_type_hints(kind, include_extras=True)
            names = [field.name for field in fields(kind)]
        elif hasattr(kind, "__required_keys__"):  # a TypedDict, typing's or typing_extensions'
            hints = get_type_hints(kind)
            names = list(hints)
        else:
            return []
        return [_Column(name, name, TypeAdapter(hints[name])) for name in names]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _column_name(name: str, info: FieldInfo) -> str:
    return info.validation_alias if isinstance(info.validation_alias, str) else name


def _constrained(info: FieldInfo) -> Any:
    """Return the field's type with its constraints, but not its default."""
    return Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation


def _dataclass_of(kind: Any, values: dict[str, Any]) -> Any:
    """Return an instance with `values` and defaults; its own `__init__` would ask for the
    others."""
    record = object.__new__(kind)
    for field in fields(kind):
        if field.name in values:
            object.__setattr__(record, field.name, values[field.name])
        elif field.default is not MISSING:
            object.__setattr__(record, field.name, field.default)
        elif field.default_factory is not MISSING:
            object.__setattr__(record, field.name, field.default_factory())
    return record

"""A row as the task's type: whole, or with the columns that the WAL carries."""

from __future__ import annotations

import typing
from collections.abc import Collection, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cached_property
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
import typing_extensions
from pydantic import AliasChoices, BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from triggerkit.errors import FieldProblem, InvalidPayload
from triggerkit.message import UNCHANGED
from triggerkit.tasks.payload.encode import constrained
from triggerkit.tasks.payload.validated import (
    decoded,
    problems_of,
    validate_json,
    validate_python,
)

_ANY = msgspec.json.Decoder()

#: What a TypedDict wraps around the type of a key.
_QUALIFIERS = (
    typing.Required,
    typing.NotRequired,
    typing_extensions.ReadOnly,
)


class _Column(NamedTuple):
    names: frozenset[str]
    attribute: str
    adapter: TypeAdapter[Any]


class RecordType:
    """Validates rows as a pydantic model, dataclass, TypedDict or dict, or one of several."""

    def __init__(self, kind: Any) -> None:
        self._adapter: TypeAdapter[Any] = TypeAdapter(kind)
        self._list_adapter: TypeAdapter[list[Any]] = TypeAdapter(list[kind])
        self._kinds = [_Kind(one) for one in _kinds(kind)]

    def parse_all(self, rows: Sequence[bytes | msgspec.Raw]) -> list[Any]:
        """`parse` of whole rows, in a third of the time.

        Raises:
            InvalidPayload: one does not fit.
        """
        try:
            return self._list_adapter.validate_json(b"[%b]" % b",".join(rows))
        except Exception:
            # One that does not fit, or whose validator failed: looking at each tells which.
            return [self.parse(bytes(row)) for row in rows]

    def parse(self, row: bytes, *, unchanged: Collection[str] = (), partial: bool = False) -> Any:
        """Return the row whose known columns are given as JSON.

        Columns named in `unchanged` become `UNCHANGED`; when `partial`, others may lack too: the
        record then has no attribute (or its default) where a column is not known.

        Raises:
            InvalidPayload: a column does not fit, or lacks; each `loc` begins with "record".
        """
        try:
            return self._parsed(row, unchanged, partial=partial)
        except InvalidPayload as error:
            within = [FieldProblem(("record", *p.loc), p.msg) for p in error.problems]
            raise InvalidPayload(within) from None

    def _parsed(self, row: bytes, unchanged: Collection[str], *, partial: bool) -> Any:
        try:
            record = validate_json(self._adapter, row)
        except ValidationError as error:
            if not (unchanged or partial):
                raise InvalidPayload(problems_of(error)) from None
            return self._in_part(decoded(_ANY, row), unchanged, partial=partial)
        for kind in self._kinds:
            if unchanged and kind.is_kind_of(record):
                return kind.mark(record, unchanged)
        return record

    def _in_part(self, known: Any, unchanged: Collection[str], *, partial: bool) -> Any:
        """Return the row as the first of the kinds that its known columns fit."""
        refused: InvalidPayload | None = None
        for kind in self._kinds:
            try:
                return kind.construct(known, unchanged, partial=partial)
            except InvalidPayload as error:
                refused = refused or error
        raise refused or InvalidPayload([FieldProblem((), "is no row of this type")])


class _Kind:
    """One type of rows, of which some columns may not be known."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def construct(self, known: Any, unchanged: Collection[str], *, partial: bool) -> Any:
        """Return the row, its unknown columns marked or absent.

        Raises:
            InvalidPayload: a known column does not fit, or another one lacks.
        """
        try:
            record = validate_python(self._adapter, known)
        except ValidationError as error:
            problems = [
                FieldProblem(e["loc"], e["msg"])
                for e in error.errors(include_url=False, include_input=False, include_context=False)
                if not (
                    e["type"] == "missing"
                    and len(e["loc"]) == 1
                    and (partial or self._is_among(e["loc"][0], unchanged))
                )
            ]
            if problems:
                raise InvalidPayload(problems) from None
            record = self._of_known(known)
        return self.mark(record, unchanged)

    def mark(self, record: Any, unchanged: Collection[str]) -> Any:
        """Return `record` with `UNCHANGED` in the columns named."""
        if not unchanged:
            return record
        names = [c.attribute for c in self._columns if not c.names.isdisjoint(unchanged)]
        if isinstance(record, dict):
            return {**record, **dict.fromkeys(names if self._columns else unchanged, UNCHANGED)}
        if isinstance(record, BaseModel):
            return record.model_copy(update=dict.fromkeys(names, UNCHANGED))
        for name in names:
            object.__setattr__(record, name, UNCHANGED)
        return record

    def is_kind_of(self, record: Any) -> bool:
        """Tell whether `record` is a row of this type."""
        kind = get_origin(self._kind) or self._kind
        if not isinstance(kind, type) or hasattr(kind, "__required_keys__"):
            return isinstance(record, dict)
        return isinstance(record, kind)

    def _is_among(self, loc: str | int, unchanged: Collection[str]) -> bool:
        of_it = next((c.names for c in self._columns if loc in c.names), {loc})
        return not of_it.isdisjoint(unchanged)

    def _of_known(self, known: dict[str, Any]) -> Any:
        values = {
            column.attribute: validate_python(column.adapter, known[name])
            for column in self._columns
            for name in column.names
            if name in known
        }
        if _is_model(self._kind):
            return self._kind.model_construct(**values)
        return _dataclass_of(self._kind, values) if is_dataclass(self._kind) else values

    @cached_property
    def _columns(self) -> list[_Column]:
        """The columns the type names; none when it takes any."""
        kind = self._kind
        if _is_model(kind):
            return [
                _Column(_names(name, info), name, TypeAdapter(constrained(info)))
                for name, info in kind.model_fields.items()
            ]
        if is_dataclass(kind):
            hints = get_type_hints(kind, include_extras=True)
            names = [field.name for field in fields(kind)]
        elif hasattr(kind, "__required_keys__"):  # a TypedDict, typing's or typing_extensions'
            hints = get_type_hints(kind, include_extras=True)
            names = list(hints)
        else:
            return []
        return [
            _Column(frozenset([name]), name, TypeAdapter(_unqualified(hints[name])))
            for name in names
        ]


def _kinds(kind: Any) -> list[Any]:
    """Return the types that `kind` is one of."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if isinstance(kind, typing_extensions.TypeAliasType):
        return _kinds(kind.__value__)
    if get_origin(kind) in (Union, UnionType):
        return [one for part in get_args(kind) if part is not NoneType for one in _kinds(part)]
    return [kind]


def _unqualified(hint: Any) -> Any:
    while get_origin(hint) in _QUALIFIERS:
        hint = get_args(hint)[0]
    return hint


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _names(name: str, info: FieldInfo) -> frozenset[str]:
    """Return the columns that the field may be read from."""
    alias = info.validation_alias
    if isinstance(alias, AliasChoices):
        return frozenset(choice for choice in alias.choices if isinstance(choice, str))
    return frozenset([alias if isinstance(alias, str) else name])


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

"""Write a value as the JSON from which its type makes an equal one.

pydantic writes what others are to see: aliases of the output, computed fields, secrets as stars.
Here each field is written as its validation reads it, and what is customized is left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any

import msgspec
import orjson
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    Field,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    TypeAdapter,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from triggerkit.errors import FieldProblem, InvalidPayload
from triggerkit.message import UNCHANGED, Change

Path = tuple[str | int, ...]

#: Stands for what pydantic has not written, or not in a shape that can be followed.
UNKNOWN: Any = object()

#: Largest integers that JSON readers agree on, and the database's.
_MOST, _LEAST = 2**64 - 1, -(2**63)


def ready_for_json(
    value: Any, written: Any = UNKNOWN, *, whole: bool = True, own_forms: bool = False
) -> Any:
    """Return models, dataclasses, `Change` and what holds them as dicts, lists and scalars.

    `written` is what pydantic made of it by its type, where that is known. Unless it is to be
    `whole`, fields that were not set are left out, so that they are not set where it is read.
    Lists and dicts of which their type makes something else stay in these `own_forms`, if wanted.

    Raises:
        InvalidPayload: it holds what JSON does not know; the problem names the field.
    """
    try:
        return _Writer(whole=whole, own_forms=own_forms).value(value, written, ())
    except RecursionError:
        raise InvalidPayload([FieldProblem((), "is nested too deeply")]) from None


def encode(payload: Any) -> bytes:
    """Return the JSON of dicts, lists and scalars.

    Raises:
        InvalidPayload: it has an integer of more than 64 bits, or text that is no Unicode; the
            problem names the field.
    """
    try:
        return orjson.dumps(payload)
    except TypeError as error:
        path = () if "Recursion" in str(error) else _culprit(payload)
        raise InvalidPayload([FieldProblem(path, f"cannot be written as JSON: {error}")]) from None


def number_for_json(value: float) -> float | str:
    """Return a number, as text where JSON does not have it."""
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if _LEAST <= value <= _MOST else str(value)


class _Writer:
    """Follows a value, and beside it what pydantic has written of it."""

    def __init__(self, *, whole: bool, own_forms: bool) -> None:
        self._whole = whole
        self._own_forms = own_forms

    def change(self, change: Change[Any]) -> dict[str, Any]:
        """Return a change as a message."""
        return {
            "record": self.value(change.record, UNKNOWN, ("record",)),
            "changes": self.value(change.changes, UNKNOWN, ("changes",)),
            "action": change.action,
            "metadata": msgspec.to_builtins(change.metadata),
        }

    def value(self, value: Any, written: Any, path: Path) -> Any:
        if isinstance(value, BaseModel):
            return self.model(value, written, path)
        if isinstance(value, Change):
            return self.change(value)
        if is_dataclass(value) and not isinstance(value, type):
            return self.dataclass(value, written, path)
        if isinstance(value, Mapping):
            return self.mapping(value, written, path)
        if isinstance(value, list | tuple | set | frozenset):
            follow = isinstance(written, list) and len(written) == len(value)
            if self._is_own_form(written, follow):
                return written
            parts = written if follow else [UNKNOWN] * len(value)
            return [
                self.value(item, part, (*path, i))
                for i, (item, part) in enumerate(zip(value, parts, strict=True))
            ]
        return self.scalar(value, written, path)

    def scalar(self, value: Any, written: Any, path: Path) -> Any:
        if isinstance(value, SecretStr | SecretBytes | Secret):
            return self.value(value.get_secret_value(), UNKNOWN, path)
        if isinstance(value, float) or type(value) is int:
            number = number_for_json(value)
            if isinstance(number, str):
                return number
        if written is not UNKNOWN:
            return written
        try:
            return to_jsonable_python(value, fallback=_fields, inf_nan_mode="strings")
        except (TypeError, ValueError):
            problem = f"cannot be written as JSON: {type(value).__name__}"
            raise InvalidPayload([FieldProblem(path, problem)]) from None

    def model(self, model: BaseModel, written: Any, path: Path) -> Any:
        kind = type(model)
        if written is UNKNOWN:
            written = written_as(TypeAdapter(kind), model)
        if written is not UNKNOWN and _is_own_form(kind, written):
            return written
        if isinstance(model, RootModel):
            return self.value(model.root, written, path)
        known = model.__dict__
        ready: dict[str, Any] = {}
        for name, info in kind.model_fields.items():
            if name not in known or known[name] is UNCHANGED:
                continue
            is_set = self._whole or name in model.model_fields_set
            if not is_set and _is_default(info, known[name]):
                continue
            part = _part(written, info.serialization_alias or name)
            if part is UNKNOWN and info.exclude:
                part = written_as(_adapter(kind, name), known[name])
            by_name = kind.model_config.get("validate_by_alias") is False
            read_as = name if by_name else _read_as(name, info)
            _put(ready, read_as, self.value(known[name], part, (*path, name)))
        for name, value in (model.__pydantic_extra__ or {}).items():
            if value is not UNCHANGED:
                ready[name] = self.value(value, _part(written, name), (*path, name))
        return ready

    def dataclass(self, value: Any, written: Any, path: Path) -> Any:
        if written is not UNKNOWN and not isinstance(written, dict):
            return written
        infos: Mapping[str, FieldInfo] = getattr(type(value), "__pydantic_fields__", {})
        ready: dict[str, Any] = {}
        for field in fields(value):
            given = getattr(value, field.name, UNCHANGED)
            if given is UNCHANGED or not field.init:
                continue
            info = infos.get(field.name)
            shown_as = field.name if info is None else info.serialization_alias or field.name
            read_as = (field.name,) if info is None else _read_as(field.name, info)
            _put(ready, read_as, self.value(given, _part(written, shown_as), (*path, field.name)))
        return ready

    def mapping(self, value: Mapping[Any, Any], written: Any, path: Path) -> Any:
        known = {key: item for key, item in value.items() if item is not UNCHANGED}
        follow = isinstance(written, dict) and len(written) == len(known)
        if self._is_own_form(written, follow):
            return written
        items: Iterable[tuple[Any, Any]] = (
            written.items() if follow else [(_key(key), UNKNOWN) for key in known]
        )
        return {
            shown_as: self.value(item, part, (*path, key if isinstance(key, int) else str(key)))
            for (key, item), (shown_as, part) in zip(known.items(), items, strict=True)
        }

    def _is_own_form(self, written: Any, follow: bool) -> bool:
        return self._own_forms and written is not UNKNOWN and not follow


def _fields(value: Any) -> Any:
    return msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else vars(value)


def written_as(adapter: TypeAdapter[Any], value: Any) -> Any:
    """Return what pydantic writes of `value`; `UNKNOWN` where a part cannot be written."""
    try:
        return adapter.dump_python(
            value, mode="json", by_alias=True, round_trip=True, warnings=False
        )
    except Exception:
        return UNKNOWN


@lru_cache(maxsize=1024)
def _adapter(kind: type[BaseModel], name: str) -> TypeAdapter[Any]:
    """Return the type of a field that its model does not write."""
    return TypeAdapter(constrained(kind.model_fields[name]))


def constrained(info: FieldInfo) -> Any:
    """Return a field's type with its constraints, but not its default."""
    metadata = list(info.metadata)
    if info.discriminator is not None:
        metadata.append(Field(discriminator=info.discriminator))
    return Annotated[(info.annotation, *metadata)] if metadata else info.annotation


def _is_own_form(kind: type[BaseModel], written: Any) -> bool:
    """Tell whether a serializer of the model's own has made something else of it."""
    is_other = not issubclass(kind, RootModel) and not isinstance(written, dict)
    return is_other or bool(kind.__pydantic_decorators__.model_serializers)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else next(iter(to_jsonable_python({key: None})))


def _part(written: Any, name: str) -> Any:
    return written.get(name, UNKNOWN) if isinstance(written, dict) else UNKNOWN


def _is_default(info: FieldInfo, value: Any) -> bool:
    """Tell whether the reader sets it by itself, so that it stays a field that was not set."""
    if info.default_factory is not None or info.default is PydanticUndefined:
        return False
    return value is info.default or (
        isinstance(value, str | int | float | bool | tuple) and bool(value == info.default)
    )


def _read_as(name: str, info: FieldInfo) -> Path | str:
    """Return where validation looks for the field."""
    alias = info.validation_alias
    if isinstance(alias, AliasChoices):
        alias = alias.choices[0]
    if isinstance(alias, AliasPath):
        return tuple(alias.path)
    return name if alias is None else alias


def _put(ready: dict[str, Any], read_as: Path | str, value: Any) -> None:
    """Set the value in `ready`, or within it where the path goes on."""
    path = (read_as,) if isinstance(read_as, str) else read_as
    place: Any = ready
    for step, following in pairwise(path):
        inner: Any = [] if isinstance(following, int) else {}
        place = _at(place, step, inner)
    _at(place, path[-1], UNKNOWN)
    place[path[-1]] = value


def _at(place: Any, step: str | int, default: Any) -> Any:
    if isinstance(place, dict):
        return place.setdefault(step, default)
    place.extend([None] * (int(step) + 1 - len(place)))
    if place[step] is None:
        place[step] = default
    return place[step]


def _culprit(payload: Any) -> Path:
    """Return where JSON cannot be written."""
    if isinstance(payload, dict):
        parts: Iterable[tuple[Any, Any]] = payload.items()
    else:
        parts = enumerate(payload) if isinstance(payload, list) else ()
    for step, part in parts:
        try:
            orjson.dumps({step: part}, option=orjson.OPT_NON_STR_KEYS)
        except TypeError:
            return (step, *_culprit(part))
    return ()

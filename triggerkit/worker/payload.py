"""A task's payload: its type, read from the function's annotation, checked at the door."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from triggerkit.errors import ConfigurationError, FieldProblem, InvalidPayload
from triggerkit.message import UNCHANGED, Change, Envelope

_envelope = TypeAdapter(Envelope)

#: What a task takes: one change, a list of changes, or a payload of its own.
Shape = Literal["change", "batch", "plain"]


class PayloadType:
    """The type of a task's one parameter."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Read the annotation of `function`'s first parameter.

        Raises:
            ConfigurationError: it takes no parameter, or more than one without a default.
        """
        annotation = _annotation(function)
        self.shape: Shape = "plain"
        if get_origin(annotation) is list and _is_change(get_args(annotation)[0]):
            self.shape = "batch"
            annotation = get_args(annotation)[0]
        elif _is_change(annotation):
            self.shape = "change"
        if self.shape != "plain":
            annotation = (get_args(annotation) or (dict[str, Any],))[0]
        self._record_type = annotation
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        except Exception as error:
            raise ConfigurationError(
                f"task {function.__name__}: its parameter's type cannot be validated ({error})"
            ) from error
        self._fields: dict[str, TypeAdapter[Any]] = {}

    def parse(self, raw: Any) -> Any:
        """Validate one payload, or one message when the task takes changes.

        Raises:
            InvalidPayload: it does not fit; `problems` names the fields.
        """
        try:
            if self.shape == "plain":
                return self._adapter.validate_python(raw)
            return self._change(_envelope.validate_python(raw))
        except ValidationError as error:
            raise InvalidPayload(_problems(error)) from None

    def _change(self, envelope: Envelope) -> Change[Any]:
        record = self._record(envelope)
        return Change(record, envelope.changes, envelope.action, envelope.metadata)

    def _record(self, envelope: Envelope) -> Any:
        if envelope.record is None:
            return None
        partial = envelope.action == "delete" or bool(envelope.metadata.unchanged)
        try:
            return self._adapter.validate_python(envelope.record)
        except ValidationError as error:
            if partial and all(e["type"] == "missing" for e in error.errors()):
                return self._partial(envelope)
            located = [{**e, "loc": ("record", *e["loc"])} for e in error.errors()]
            raise InvalidPayload([FieldProblem(e["loc"], e["msg"]) for e in located]) from None  # type: ignore[arg-type]

    def _partial(self, envelope: Envelope) -> Any:
        """A record of the columns that are known: a delete's key, or all but the unchanged ones."""
        known: dict[str, Any] = {
            **(envelope.record or {}),
            **dict.fromkeys(envelope.metadata.unchanged, UNCHANGED),
        }
        kind = self._record_type
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            values: Any = {
                name: value if value is UNCHANGED else self._field(name, value)
                for name, value in known.items()
                if name in kind.model_fields
            }
            return kind.model_construct(**values)
        if isinstance(kind, type) and is_dataclass(kind):
            record = object.__new__(kind)
            for name, value in known.items():
                object.__setattr__(record, name, value)
            return record
        return known

    def _field(self, name: str, value: Any) -> Any:
        if name not in self._fields:
            info = self._record_type.model_fields[name]
            self._fields[name] = TypeAdapter(info.annotation)
        return self._fields[name].validate_python(value)


def _annotation(function: Callable[..., Any]) -> Any:
    parameters = list(inspect.signature(function).parameters.values())
    required = [p for p in parameters if p.default is p.empty]
    if not parameters or len(required) > 1:
        raise ConfigurationError(
            f"task {function.__name__} must take one parameter, its payload: "
            f"def {function.__name__}(change: Change[Model]) or (batch: list[Change[Model]])"
        )
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise ConfigurationError(
            f"task {function.__name__}: an annotation cannot be resolved ({error}); "
            "import the type at the module's top"
        ) from error
    return hints.get(parameters[0].name, dict[str, Any])


def _is_change(annotation: Any) -> bool:
    return annotation is Change or get_origin(annotation) is Change


def _problems(error: ValidationError) -> list[FieldProblem]:
    return [FieldProblem(tuple(e["loc"]), e["msg"]) for e in error.errors(include_url=False)]

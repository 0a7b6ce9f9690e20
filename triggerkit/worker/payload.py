"""A task's payload: its type, read from the function's annotation, checked at the door."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from pydantic import TypeAdapter, ValidationError

from triggerkit.errors import ConfigurationError, FieldProblem, InvalidPayload
from triggerkit.message import Change, Envelope
from triggerkit.worker.record import RecordType

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
        try:
            self._plain: TypeAdapter[Any] = TypeAdapter(annotation)
            self._record = RecordType(annotation)
        except Exception as error:
            raise ConfigurationError(
                f"task {function.__name__}: its parameter's type cannot be validated ({error})"
            ) from error

    def parse(self, raw: Any) -> Any:
        """Validate one payload, or one message when the task takes changes.

        Raises:
            InvalidPayload: it does not fit; `problems` names the fields.
        """
        try:
            if self.shape == "plain":
                return self._plain.validate_python(raw)
            return self._change(msgspec.convert(raw, Envelope))
        except msgspec.ValidationError as error:
            raise InvalidPayload([_problem(str(error))]) from None
        except ValidationError as error:
            problems = error.errors(include_url=False)
            raise InvalidPayload([FieldProblem(e["loc"], e["msg"]) for e in problems]) from None

    def _change(self, envelope: Envelope) -> Change[Any]:
        record: Any = None
        if envelope.record is not None:
            record = self._record.parse(
                envelope.record,
                unchanged=envelope.metadata.unchanged,
                partial=envelope.action == "delete",
            )
        elif envelope.action != "truncate":
            raise InvalidPayload([FieldProblem(("record",), "only a truncate has no record")])
        return Change(record, envelope.changes, envelope.action, envelope.metadata)


def _annotation(function: Callable[..., Any]) -> Any:
    parameters = list(inspect.signature(function).parameters.values())
    required = [p for p in parameters if p.default is p.empty]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or len(required) > 1 or parameters[0].kind not in positional:
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


def _problem(message: str) -> FieldProblem:
    """A field and its problem, read from msgspec's message with its path."""
    msg, _, path = message.partition(" - at `$")
    names = re.findall(r"\.(\w+)|\[(\d+)\]", path)
    loc: list[str | int] = [name or int(index) for name, index in names]
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", msg):
        return FieldProblem((*loc, missing.group(1)), "Field required")
    return FieldProblem(tuple(loc), msg)


def _is_change(annotation: Any) -> bool:
    return annotation is Change or get_origin(annotation) is Change

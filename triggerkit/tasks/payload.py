"""A task's payload: its type, read from the function's annotation, checked at the door."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from pydantic import TypeAdapter, ValidationError

from triggerkit.errors import ConfigurationError, FieldProblem, InvalidPayload
from triggerkit.message import Change, Envelope
from triggerkit.tasks.record import RecordType

#: What a task takes: one change, a list of changes, a payload of its own, or nothing.
Shape = Literal["change", "batch", "plain", "none"]

#: JSON that is not parsed yet.
Json = bytes | str | msgspec.Raw

T = TypeVar("T")


class PayloadType:
    """The type of a task's one parameter."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Read the annotation of `function`'s first parameter.

        Raises:
            ConfigurationError: it takes more than one parameter without a default.
        """
        annotation = _annotation(function)
        self.shape: Shape = "none" if annotation is None else "plain"
        if get_origin(annotation) is list and _is_change(get_args(annotation)[0]):
            self.shape = "batch"
            annotation = get_args(annotation)[0]
        elif _is_change(annotation):
            self.shape = "change"
        if self.shape in ("batch", "change"):
            annotation = (get_args(annotation) or (dict[str, Any],))[0]
        try:
            self._plain: TypeAdapter[Any] = TypeAdapter(annotation)
            self._record = RecordType(annotation)
        except Exception as error:
            raise ConfigurationError(
                f"task {function.__name__}: its parameter's type cannot be validated ({error})"
            ) from error

    def read(self, raw: Json) -> Any:
        """Parse one payload from its JSON, or one message when the task takes changes.

        Raises:
            InvalidPayload: it does not fit; `problems` names the fields.
        """
        if self.shape in ("plain", "none"):
            return self.parse(_decoded(msgspec.json.decode, raw))
        return self.changes([read_envelope(raw)])[0]

    def parse(self, raw: Any) -> Any:
        """`read` for JSON that is parsed already."""
        if self.shape == "none":
            return None
        if self.shape == "plain":
            try:
                return self._plain.validate_python(raw)
            except ValidationError as error:
                problems = error.errors(include_url=False)
                raise InvalidPayload([FieldProblem(e["loc"], e["msg"]) for e in problems]) from None
        return self.changes([_decoded(_convert_envelope, raw)])[0]

    def changes(self, envelopes: Sequence[Envelope]) -> list[Change[Any]]:
        """Return what the task gets for each of `envelopes`, in order.

        Raises:
            InvalidPayload: one does not fit.
        """
        if all(map(_has_whole_record, envelopes)):
            records = self._record.parse_all([envelope.record for envelope in envelopes])
        else:
            records = [self._record_of(envelope) for envelope in envelopes]
        return [
            Change(record, envelope.changes, envelope.action, envelope.metadata)
            for record, envelope in zip(records, envelopes, strict=True)
        ]

    def _record_of(self, envelope: Envelope) -> Any:
        if envelope.record is not None:
            return self._record.parse(
                envelope.record,
                unchanged=envelope.metadata.unchanged,
                partial=envelope.action == "delete",
            )
        if envelope.action != "truncate":
            raise InvalidPayload([FieldProblem(("record",), "only a truncate has no record")])
        return None


def read_envelope(raw: Json) -> Envelope:
    """Parse one message from its JSON.

    Raises:
        InvalidPayload: it is none; `problems` names the field.
    """
    return _decoded(_decode_envelope, raw)


def read_envelopes(raw: Json) -> list[Envelope]:
    """Return the messages of a batch, `{"data": [message, …]}`.

    Raises:
        InvalidPayload: one is none.
    """
    return _decoded(_decode_batch, raw).data


class _Batch(msgspec.Struct, gc=False):
    data: list[Envelope]


_decode_envelope = msgspec.json.Decoder(Envelope).decode
_decode_batch = msgspec.json.Decoder(_Batch).decode


def _convert_envelope(raw: Any) -> Envelope:
    return msgspec.convert(raw, Envelope)


def _decoded(decode: Callable[[Any], T], raw: Any) -> T:
    try:
        return decode(raw)
    except msgspec.ValidationError as error:
        raise InvalidPayload([_problem(str(error))]) from None
    except RecursionError:
        raise InvalidPayload([FieldProblem((), "is nested too deeply")]) from None


def _has_whole_record(envelope: Envelope) -> bool:
    return (
        envelope.record is not None
        and envelope.action != "delete"
        and not envelope.metadata.unchanged
    )


def _annotation(function: Callable[..., Any]) -> Any:
    """Return the type of the function's parameter; None when it takes none."""
    parameters = list(inspect.signature(function).parameters.values())
    required = [p for p in parameters if p.default is p.empty]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters:
        return None
    if len(required) > 1 or parameters[0].kind not in positional:
        raise ConfigurationError(
            f"task {function.__name__} must take one parameter, its payload, or none: "
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
    """Return a field and its problem, read from msgspec's message with its path."""
    msg, _, path = message.partition(" - at `$")
    names = re.findall(r"\.(\w+)|\[(\d+)\]", path)
    loc: list[str | int] = [name or int(index) for name, index in names]
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", msg):
        return FieldProblem((*loc, missing.group(1)), "Field required")
    return FieldProblem(tuple(loc), msg)


def _is_change(annotation: Any) -> bool:
    return annotation is Change or get_origin(annotation) is Change

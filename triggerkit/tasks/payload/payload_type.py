"""A task's payload: its type, read from the function's annotation, checked at the door."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import orjson
from pydantic import TypeAdapter, ValidationError

from triggerkit.change import Action
from triggerkit.errors import ConfigurationError, FieldProblem, InvalidPayload
from triggerkit.message import Change, Metadata
from triggerkit.tasks.function import called, name_of
from triggerkit.tasks.payload.difference import difference
from triggerkit.tasks.payload.encode import encode, ready_for_json, written_as
from triggerkit.tasks.payload.record import RecordType
from triggerkit.tasks.payload.validated import (
    decoded,
    problems_of,
    validate_json,
    validate_python,
)

#: What a task takes: one change, a list of changes, a payload of its own, or nothing.
Shape = Literal["change", "batch", "plain", "none"]

#: JSON that is not parsed yet.
Json = bytes | str | msgspec.Raw

#: Has orjson refuse what JSON readers would get as something else.
_NO_OBJECTS = (
    orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)

_NOT_BACK = (
    "would not arrive as it was given: what its type writes as JSON it does not read as the same; "
    "give it a type that does"
)


class PayloadType:
    """The type of a task's one parameter."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Read the annotation of `function`'s first parameter.

        Raises:
            ConfigurationError: it takes more than one parameter without a default.
        """
        annotation = _annotation(function)
        self.shape: Shape = "none" if annotation is None else "plain"
        bare = _bare(annotation)
        if get_origin(bare) is list and _is_change(get_args(bare)[0]):
            self.shape = "batch"
            annotation = get_args(bare)[0]
        elif _is_change(bare):
            self.shape = "change"
            annotation = bare
        if self.shape in ("batch", "change"):
            annotation = (get_args(annotation) or (dict[str, Any],))[0]
        takes_rows = self.shape in ("batch", "change") and get_origin(annotation) is not dict
        self._row_type = annotation if takes_rows else None
        try:
            self._plain: TypeAdapter[Any] = TypeAdapter(annotation)
            self._record = RecordType(annotation)
        except Exception as error:
            raise ConfigurationError(
                f"task {name_of(function)}: its parameter's type cannot be validated ({error})"
            ) from error

    def read(self, raw: Json) -> Any:
        """Parse one payload from its JSON, or one message when the task takes changes.

        Raises:
            InvalidPayload: it does not fit; `problems` names the fields.
        """
        if self.shape == "none":
            return None
        if self.shape == "plain":
            try:
                return validate_json(self._plain, _bytes(raw))
            except ValidationError as error:
                raise InvalidPayload(problems_of(error)) from None
        return self.changes([read_envelope(raw)])[0]

    @property
    def row_type(self) -> Any:
        """Return what the task takes a row of a table for; None where it takes no changes, or any
        row (a dict)."""
        return self._row_type

    def misfits(self, row: dict[str, Any]) -> list[tuple[str, str, str]]:
        """Return what does not fit of a whole row that messages have, as pydantic says it: column,
        kind of error, message."""
        try:
            self._plain.validate_json(orjson.dumps(row))
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            return [(str(e["loc"][0]), e["type"], e["msg"]) for e in found if e["loc"]]
        except Exception:
            # A validator of the project's own, which was not made for such a row.
            return []
        return []

    def parse(self, raw: Any) -> Any:
        """`read` for JSON that is parsed already."""
        return self.read(encode(raw))

    def write(self, value: Any) -> bytes:
        """Return the JSON from which `read` makes a value that equals `value`.

        Raises:
            InvalidPayload: it does not fit, or it cannot arrive as it is; the problem names the
                field.
        """
        if self.shape != "plain":
            return self._write_change(value)
        try:
            typed = validate_python(self._plain, value)
        except (ValidationError, InvalidPayload):
            # What fits as JSON need not fit as Python: texts of dates, of a strict model.
            written = encode(ready_for_json(value))
            self.read(written)
            return written
        if (as_given := _as_given(value)) is not None:
            with suppress(InvalidPayload):
                if difference(typed, self.read(as_given)) is None:
                    return as_given
        dumped = written_as(self._plain, typed)
        # A tag of a union may be a field that was not set: then all are written. A form of the
        # type's own that it does not read is none.
        for own_forms, whole in ((True, False), (True, True), (False, False)):
            with suppress(InvalidPayload):
                ready = ready_for_json(typed, dumped, whole=whole, own_forms=own_forms)
                return self._checked(typed, encode(ready))
        return self._checked(typed, encode(ready_for_json(typed, dumped)))

    def changes(self, envelopes: Sequence[RawEnvelope]) -> list[Change[Any]]:
        """Return what the task gets for each of `envelopes`, in order.

        Raises:
            InvalidPayload: one does not fit.
        """
        return [
            Change(record, envelope.changes, envelope.action, envelope.metadata)
            for record, envelope in zip(self._records_of(envelopes), envelopes, strict=True)
        ]

    def check(self, envelopes: Sequence[RawEnvelope]) -> None:
        """Raise what `changes` raises, and make nothing."""
        self._records_of(envelopes)

    def _records_of(self, envelopes: Sequence[RawEnvelope]) -> list[Any]:
        if all(map(_has_whole_record, envelopes)):
            return self._record.parse_all([envelope.record for envelope in envelopes])
        return [self._record_of(envelope) for envelope in envelopes]

    def _record_of(self, envelope: RawEnvelope) -> Any:
        record = bytes(envelope.record)
        if record != b"null":
            return self._record.parse(
                record,
                unchanged=envelope.metadata.unchanged,
                partial=envelope.action == "delete",
            )
        if envelope.action != "truncate":
            raise InvalidPayload([FieldProblem(("record",), "only a truncate has no record")])
        return None

    def _write_change(self, value: Any) -> bytes:
        if not isinstance(value, Change):
            written = encode(ready_for_json(value))
            self.read(written)
            return written
        with suppress(InvalidPayload):
            return self._checked(value, encode(ready_for_json(value, own_forms=True)))
        written = encode(ready_for_json(value))
        if isinstance(value.record, dict) and not isinstance(self.read(written).record, dict):
            return written
        return self._checked(value, written)

    def _checked(self, value: Any, written: bytes) -> bytes:
        """Return `written`, if `value` comes out of it.

        Raises:
            InvalidPayload: it does not.
        """
        try:
            read = self.read(written)
        except InvalidPayload as error:
            told = [FieldProblem(p.loc, f"{_NOT_BACK} ({p.msg})") for p in error.problems]
            raise InvalidPayload(told) from None
        found = difference(value, read)
        if found is None:
            return written
        raise InvalidPayload([FieldProblem(found, _NOT_BACK)])


def read_envelope(raw: Json) -> RawEnvelope:
    """Parse one message from its JSON.

    Raises:
        InvalidPayload: it is none; `problems` names the field.
    """
    return decoded(_envelope, raw)


def read_envelopes(raw: Json) -> list[RawEnvelope]:
    """Return the messages of a batch, `{"data": [message, …]}`.

    Raises:
        InvalidPayload: one is none.
    """
    return decoded(_batch, raw).data


class RawEnvelope(msgspec.Struct, frozen=True, gc=False):
    """One message as it arrives, its record not parsed yet."""

    record: msgspec.Raw
    action: Action
    metadata: Metadata
    changes: dict[str, Any] | None = None


class _Batch(msgspec.Struct, gc=False):
    data: list[RawEnvelope]


_NULL = msgspec.Raw(b"null")

_envelope = msgspec.json.Decoder(RawEnvelope)
_batch = msgspec.json.Decoder(_Batch)


def _bytes(raw: Json) -> bytes:
    return raw.encode() if isinstance(raw, str) else bytes(raw)


def _as_given(value: Any) -> bytes | None:
    """Return the JSON of what is JSON as it is."""
    try:
        return orjson.dumps(value, option=_NO_OBJECTS)
    except TypeError:
        return None


def _has_whole_record(envelope: RawEnvelope) -> bool:
    return (
        envelope.action not in ("delete", "truncate")
        and not envelope.metadata.unchanged
        and envelope.record != _NULL
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
            f"task {name_of(function)} must take one parameter, its payload, or none: "
            f"def {name_of(function)}(change: Change[Model]) or (batch: list[Change[Model]])"
        )
    try:
        hints = get_type_hints(called(function), include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            f"task {name_of(function)}: an annotation cannot be resolved ({error}); "
            "import the type at the module's top"
        ) from error
    return hints.get(parameters[0].name, dict[str, Any])


def _is_change(annotation: Any) -> bool:
    return annotation is Change or get_origin(annotation) is Change


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation

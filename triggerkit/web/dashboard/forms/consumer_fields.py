"""A consumer's definition as the fields of its form, and back.

What was typed is given on as text: whether it fits is for the definition to say, as it does for
commands and the API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

import orjson

from triggerkit.change import Action
from triggerkit.consumers.definition import BEGINNING, END, ConsumerDefinition
from triggerkit.consumers.filters.filter import Filter, Operator
from triggerkit.web.dashboard.forms.typed import Typed

#: The words that the form offers.
ACTIONS: Final = get_args(Action)
OPERATORS: Final = get_args(Operator)

#: Fields that are a line of text, and of these the numbers.
_NUMBERS: Final = ("batch_size", "batch_timeout_s", "concurrency", "timeout_s", "max_attempts")
_LISTS: Final = ("tables", "actions", "when_changed", "group_by")

#: All that has a place in the form where a problem is shown.
FIELDS: Final = frozenset(
    {
        *_NUMBERS, *_LISTS, "name", "kind", "sort_by", "start", "filters", "filter", "transform",
        "body", "on_exhausted", "endpoint", "task",
    }
)  # fmt: skip

#: Where the rows begin that a consumer reads first, when it is a value.
FROM_VALUE = "from"


def new_fields(tables: Sequence[str], endpoint: str = "") -> Typed:
    """Return the form of a consumer that is to be made."""
    fields = fields_of(ConsumerDefinition(kind="rows", tables=("public.any",)), endpoint)
    given = {f"tables.{number}": table for number, table in enumerate(tables)}
    return Typed({**fields, "tables.0": "", **given, "delivery": "push", "start": ""})


def fields_of(definition: ConsumerDefinition, endpoint: str | None) -> dict[str, str]:
    """Return the fields of a form that shows a definition; `endpoint` is the one in use."""
    is_word = definition.start in (BEGINNING, END)
    fields = {
        "kind": definition.kind,
        "sort_by": definition.sort_by or "",
        "start": str(definition.start) if is_word else FROM_VALUE,
        "start_value": "" if is_word else str(definition.start),
        "filter": definition.filter or "",
        "transform": definition.transform or "",
        "body": definition.body,
        "on_exhausted": definition.on_exhausted,
        "endpoint": endpoint or "",
        "task": definition.task or "",
        "delivery": "direct" if definition.is_direct else "push" if endpoint else "pull",
    }
    for name in _NUMBERS:
        value = getattr(definition, name)
        fields[name] = "" if value is None else str(value).removesuffix(".0")
    for name in _LISTS:
        for number, value in enumerate(getattr(definition, name) or ()):
            fields[f"{name}.{number}"] = value
    for number, filter_ in enumerate(definition.filters):
        at = f"filters.{number}"
        fields[f"{at}.column"], fields[f"{at}.operator"] = filter_.column, filter_.operator
        fields[f"{at}.value"] = _value_text(filter_)
    return fields


def values_of(typed: Typed) -> dict[str, Any]:
    """Return the fields of a definition that was typed, of all that the form has."""
    defaults = ConsumerDefinition.model_fields
    values: dict[str, Any] = {
        "kind": typed.text("kind"),
        "start": _start(typed),
        "filters": [list(row) for row in filter_rows(typed)],
        **{n: typed.text(n) or defaults[n].default for n in ("body", "on_exhausted")},
        "sort_by": typed.exact("sort_by") or None,
        **{name: typed.text(name) or None for name in ("filter", "transform")},
        **{name: typed.listed(name) or None for name in _LISTS if name != "tables"},
        **{name: typed.text(name) or defaults[name].default for name in _NUMBERS},
        "tables": [*typed.listed("tables"), *filter(None, [typed.text("other_table")])],
        **_delivery(typed),
    }
    if values["via"] == "direct":
        # A run is made without a push, and with the task's own limits.
        del values["timeout_s"]
    return values


def filter_rows(typed: Typed) -> list[tuple[Any, ...]]:
    """Return the comparisons that were typed, as a file has them."""
    rows: list[tuple[Any, ...]] = []
    for number in typed.numbers("filters"):
        column = typed.exact(f"filters.{number}.column")
        operator = typed.text(f"filters.{number}.operator")
        value = typed.exact(f"filters.{number}.value")
        if not column and not value:
            continue
        if operator in ("in", "not_in"):
            rows.append((column, operator, _list(value)))
        elif operator in ("is_null", "not_null") and not value:
            rows.append((column, operator))
        else:
            rows.append((column, operator, value))
    return rows


def close_up(typed: Typed) -> Typed:
    """Return the form with its comparisons numbered without a gap, as their problems are."""
    fields = {k: v for k, v in typed.fields.items() if not k.startswith("filters.")}
    place = 0
    for number in typed.numbers("filters"):
        parts = {p: typed.exact(f"filters.{number}.{p}") for p in ("column", "operator", "value")}
        if parts["column"] or parts["value"]:
            fields |= {f"filters.{place}.{part}": value for part, value in parts.items()}
            place += 1
    return Typed(fields, typed.problems, typed.problem)


def _start(typed: Typed) -> str | None:
    chosen = typed.text("start")
    return typed.text("start_value") if chosen == FROM_VALUE else chosen or None


def _delivery(typed: Typed) -> Mapping[str, str | None]:
    chosen = typed.text("delivery")
    if chosen == "direct":
        return {"via": "direct", "task": typed.text("task")}
    return {
        "via": "webhook",
        "task": None,
        "endpoint": typed.text("endpoint") if chosen == "push" else None,
    }


def _list(text: str) -> list[Any]:
    """Read the values of a list: JSON, or separated by commas."""
    if text.lstrip().startswith("["):
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError:
            pass
        else:
            return list(found)
    return [part.strip() for part in text.split(",") if part.strip()]


def _value_text(filter_: Filter) -> str:
    value = filter_.value
    if isinstance(value, tuple):
        texts = [*map(_text, value)]
        is_plain = all(t and t == t.strip() and "," not in t and t[0] != "[" for t in texts)
        return ", ".join(texts) if is_plain else orjson.dumps(list(value)).decode()
    return "" if value is None else _text(value)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

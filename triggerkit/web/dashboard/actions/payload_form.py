"""A payload that somebody types: put up for editing, and read, with what is wrong with it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from triggerkit.errors import FieldProblem, InvalidPayload
from triggerkit.web.dashboard.page import Asked

#: Characters of a payload that is put up for editing.
MOST_EDITED = 20_000

_HIDDEN = re.compile(r"[^ -~]")


def edited_text(asked: Asked, payload: Any) -> str | None:
    """Return a payload as text to edit; None when it is too large for that, or not to be seen."""
    if asked.call.settings.triggerkit_hide_values:
        return None
    text = json.dumps(payload, indent=2, ensure_ascii=False, default=str)
    text = "\n".join(_HIDDEN.sub(_escaped, line) for line in text.split("\n"))
    return text if len(text) <= MOST_EDITED else None


def _escaped(found: re.Match[str]) -> str:
    """Return what cannot be seen as JSON writes it in ASCII."""
    return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]


def typed_payload(asked: Asked) -> Any:
    """Return the payload that was typed; whole numbers are exact, however large.

    Raises:
        InvalidPayload: it is no JSON.
    """
    text = asked.form.get("payload", "").strip() or "null"
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidPayload([FieldProblem((), f"is no JSON: {error.msg} at {where}")]) from None
    except (ValueError, RecursionError) as error:
        said = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise InvalidPayload([FieldProblem((), f"is no JSON: {said}")]) from None


def problem_lines(error: InvalidPayload) -> Sequence[str]:
    """Return what is wrong with a payload, a line for each field."""
    return [
        f"{'.'.join(map(str, problem.loc)) or 'the payload'}: {problem.msg}"
        for problem in error.problems
    ]


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name[:30]} is no number of JSON")

"""What a form of a change was filled with when it was shown: who saves it is told what others have
changed since."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from triggerkit.web.dashboard.forms.typed import Typed

#: The field that has it.
SEEN: Final = "seen"

#: Characters of a value in a sentence.
VALUE_CHARS = 100


def shown_with(typed: Typed, now: Mapping[str, str]) -> Typed:
    """Return a form that is shown while what it changes is as `now` says."""
    return replace(typed, fields={**typed.fields, SEEN: json.dumps(now)})


def changed_since(typed: Typed, now: Mapping[str, str]) -> str:
    """Return what others have changed since the form was shown; nothing where it is as it was, and
    of a form that does not say."""
    try:
        before = json.loads(typed.exact(SEEN))
    except ValueError:
        return ""
    if not isinstance(before, dict) or before == now:
        return ""
    names = dict.fromkeys(key.partition(".")[0] for key in (*before, *now))
    changes = [
        f"{name} was {old}, and is {new}"
        for name in names
        if (old := _text(before, name)) != (new := _text(now, name))
    ]
    return "; ".join(changes)


def outdated(typed: Typed, now: Mapping[str, str], changes: str) -> Typed:
    """Return the form with what was typed, and what others have changed said before it. Saved once
    more, it takes the place of that."""
    said = (
        f"Somebody else has saved it since this form was loaded: {changes}. What you typed is "
        "still here: save it once more to put it in the place of that."
    )
    return replace(shown_with(typed, now), problem=said)


def _text(fields: Mapping[str, object], name: str) -> str:
    parts = [
        str(value)
        for key, value in fields.items()
        if (key == name or key.startswith(f"{name}.")) and value != ""
    ]
    text = " ".join(parts)
    if len(text) > VALUE_CHARS:
        text = f"{text[:VALUE_CHARS]}…"
    return text or "nothing"

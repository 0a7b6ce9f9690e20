"""What an import makes, and what it tells of what has no counterpart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_VARIABLE: Final = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


@dataclass(slots=True)
class Imported:
    """Endpoints and consumers as tables of `triggerkit.toml`, settings, and notes: what has no
    counterpart, or is to be done by hand."""

    endpoints: dict[str, dict[str, Any]] = field(default_factory=dict)
    consumers: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: The endpoints that were made for the path of one sink.
    of_sinks: set[str] = field(default_factory=set)
    #: Settings to put into `.env`; of a secret only its name is told.
    settings: dict[str, str | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, where: str, text: str) -> None:
        """Tell of a place in the file."""
        line = f"{where}: {text}"
        if line not in self.notes:
            self.notes.append(line)


class Section:
    """A mapping of the file: who reads it takes its keys, and what is left is told as unknown."""

    def __init__(
        self,
        values: Mapping[str, Any],
        where: str,
        into: Imported,
        environment: Mapping[str, str],
    ) -> None:
        self._values = dict(values)
        self._environment = environment
        self.where = where
        self.into = into

    def text(self, key: str, default: str | None = None) -> str | None:
        """Take a text, with its variables from the environment; a number is one, too."""
        value = self._values.pop(key, None)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self.note(f"{key} must be a text; it is left out")
            return default
        return self._expanded(str(value), key)

    def raw_text(self, key: str) -> str | None:
        """Take a text with its variables as they are: `triggerkit.toml` has them, too."""
        value = self._values.pop(key, None)
        if value is None or isinstance(value, str):
            return value
        self.note(f"{key} must be a text; it is left out")
        return None

    def flag(self, key: str) -> bool | None:
        """Take a yes or no, which may be written as text."""
        value = self._values.pop(key, None)
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if value is None or isinstance(value, bool):
            return value
        self.note(f"{key} must be true or false; it is left out")
        return None

    def number(self, key: str) -> float | None:
        """Take a number."""
        value = self._values.pop(key, None)
        if isinstance(value, str):
            value = self._expanded(value, key)
            value = float(value) if value and re.fullmatch(r"\d{1,12}(\.\d+)?", value) else "?"
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            return value
        self.note(f"{key} must be a number; it is left out")
        return None

    def texts(self, key: str) -> list[str]:
        """Take a list of texts."""
        value = self._values.pop(key, None)
        if value is None:
            return []
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return [found for one in value if (found := self._expanded(one, key)) is not None]
        self.note(f"{key} must be a list of texts; it is left out")
        return []

    def section(self, key: str) -> Section | None:
        """Take a mapping."""
        value = self._values.pop(key, None)
        if isinstance(value, dict):
            return Section(value, f"{self.where}.{key}", self.into, self._environment)
        if value is not None:
            self.note(f"{key} must be a mapping; it is left out")
        return None

    def sections(self, key: str, name: str = "name") -> Iterator[Section]:
        """Take a list of mappings, each called by its `name`."""
        value = self._values.pop(key, None)
        if value is None:
            return
        if not isinstance(value, list):
            self.note(f"{key} must be a list; it is left out")
            return
        for number, one in enumerate(value):
            if not isinstance(one, dict):
                self.note(f"{key}[{number}] must be a mapping; it is left out")
                continue
            called = one.get(name)
            place = called if isinstance(called, str) else str(number)
            prefix = f"{self.where}." if self.where else ""
            yield Section(one, f"{prefix}{key}.{place}", self.into, self._environment)

    def any(self, key: str) -> Any:
        """Take a value of whatever kind."""
        return self._values.pop(key, None)

    def has(self, key: str) -> bool:
        """Return whether a key is there and was not taken."""
        return self._values.get(key) is not None

    def without(self, keys: Mapping[str, str]) -> None:
        """Take keys that have no counterpart, and say what there is instead."""
        for key, text in keys.items():
            if self._values.pop(key, None) not in (None, "none"):
                self.note(f"{key} has no counterpart: {text}")

    def end(self) -> None:
        """Tell of the keys that nobody took."""
        for key in self._values:
            self.note(f"{key} is not known; it is left out")

    def note(self, text: str) -> None:
        """Tell of this place."""
        self.into.note(self.where or "the file", text)

    def _expanded(self, text: str, key: str) -> str | None:
        missing: list[str] = []

        def expand(match: re.Match[str]) -> str:
            name, default = match.groups()
            value = self._environment.get(name) or default
            if value is None:
                missing.append(name)
            return value or ""

        found = _VARIABLE.sub(expand, text)
        if missing:
            self.note(f"{key} needs the variable {missing[0]}, which is not set; it is left out")
            return None
        return found


def has_variable(text: str) -> bool:
    """Return whether a text has a variable in it."""
    return _VARIABLE.search(text) is not None

"""Read a `sequin.yaml` within limits: YAML with anchors, each key of a mapping once."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

from triggerkit.errors import ConfigurationError
from triggerkit.textfile import read_text

#: Characters of a file, and values in it, those of aliases counted each time: a few aliases of
#: aliases are millions of values.
MAX_CHARS: Final = 2 * 1024 * 1024
MOST_VALUES: Final = 50_000
MOST_DEEP: Final = 60

#: What a file has at its top beside what is only there to be merged elsewhere.
_ANCHORED: Final = r"^{}[ \t]*:[ \t]*&"
_SECTIONS: Final = frozenset({"databases", "http_endpoints", "sinks", "functions"})


def read_document(path: Path) -> dict[str, Any]:
    """Return the file's mapping.

    Raises:
        ConfigurationError: it is no YAML, has a key twice, or is too large; or PyYAML is missing.
    """
    text = read_text(path)
    if len(text) > MAX_CHARS:
        raise ConfigurationError(f"{path.name} has more than {MAX_CHARS:,} characters")
    found = _loaded(text, path.name)
    _Counter(path.name).count(found, 0)
    if found is None:
        raise ConfigurationError(f"{path.name} is empty")
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ConfigurationError(f"{path.name} is no sequin.yaml: it has no sections by name")
    return {key: value for key, value in found.items() if not _is_to_merge(key, text)}


def _is_to_merge(key: str, text: str) -> bool:
    """Return whether a section is only there to be merged into others by its anchor."""
    anchored = _ANCHORED.format(re.escape(key))
    return key not in _SECTIONS and re.search(anchored, text, re.MULTILINE) is not None


class _Counter:
    """Counts values, those of aliases each time that they stand there."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._values = 0

    def count(self, value: Any, depth: int) -> None:
        self._values += 1
        if self._values > MOST_VALUES or depth > MOST_DEEP:
            raise ConfigurationError(
                f"{self._name} has more than {MOST_VALUES:,} values, or nests deeper than "
                f"{MOST_DEEP}, those of its aliases counted"
            )
        parts = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict | list):
            for part in parts:
                self.count(part, depth + 1)


def _loaded(text: str, name: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise ConfigurationError(
            "reading YAML needs PyYAML: pip install 'triggerkit[sequin]'"
        ) from None

    class Loader(yaml.SafeLoader):  # type: ignore[misc] # it has no types
        """Refuses a key that a mapping has twice: one of them would be lost."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
            seen = set()
            for key_node, _ in node.value:
                key = key_node.value if isinstance(key_node.value, str) else None
                # A merge is no key: its mapping stands behind those that are written.
                if key is not None and key_node.tag != "tag:yaml.org,2002:merge":
                    if key in seen:
                        raise ConfigurationError(
                            f"{name} line {key_node.start_mark.line + 1}: {key!r} is there twice"
                        )
                    seen.add(key)
            found: dict[Hashable, Any] = super().construct_mapping(node, deep)
            return found

    try:
        return yaml.load(text, Loader)  # noqa: S506 - of a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" line {mark.line + 1}, column {mark.column + 1}"
        problem = getattr(error, "problem", None) or "it is not YAML"
        raise ConfigurationError(f"{name}{place}: {problem}") from None

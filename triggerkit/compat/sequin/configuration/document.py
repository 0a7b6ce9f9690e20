"""Read a `sequin.yaml` within limits: YAML with anchors, each key of a mapping once.

Plain scalars are those of YAML 1.2, as Sequin reads them: a date, `on` and `012` are texts.
"""

from __future__ import annotations

import math
import re
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
_SECTIONS: Final = frozenset(
    {
        "databases", "functions", "http_endpoints", "http_pull_consumers", "sequences",
        "sink_consumers", "sinks", "transforms", "webhook_subscriptions",
    }
)  # fmt: skip

#: Plain scalars that are no texts, by their tags: how they are written, and how they begin.
_SCALARS: Final = (
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:0|[1-9][0-9]*)?\.[0-9]+(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
)

_TAG: Final = "tag:yaml.org,2002:"


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
        if isinstance(value, dict | list):
            for part in value.values() if isinstance(value, dict) else value:
                self.count(part, depth + 1)
        elif not (value is None or isinstance(value, str | int | float)) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            raise ConfigurationError(
                f"{self._name} has a value that its tag makes a {type(value).__name__}, such as "
                "!!set; write texts, numbers, lists and mappings"
            )


def _loaded(text: str, name: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise ConfigurationError(
            "reading YAML needs PyYAML: pip install 'triggerkit[sequin]'"
        ) from None
    try:
        return yaml.load(text, _loader(yaml, name))  # noqa: S506 - of a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" line {mark.line + 1}, column {mark.column + 1}"
        deep = "it nests too deep" if isinstance(error, RecursionError) else "it is not YAML"
        problem = getattr(error, "problem", None) or deep
        raise ConfigurationError(f"{name}{place}: {problem}") from None


def _loader(yaml: Any, name: str) -> type[Any]:
    """Return the class that reads the file called `name`."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc] # it has no types
        """Refuses a key that a mapping has twice: one of them would be lost."""

        yaml_implicit_resolvers: Any = {}

        def compose_mapping_node(self, anchor: Any) -> Any:
            # Before what is merged stands among the keys.
            node = super().compose_mapping_node(anchor)
            seen = set()
            for key, _ in node.value:
                if not isinstance(key.value, str) or key.tag == f"{_TAG}merge":
                    continue
                if key.value in seen:
                    raise ConfigurationError(
                        f"{name} line {key.start_mark.line + 1}: {key.value!r} is there twice"
                    )
                seen.add(key.value)
                # As in JSON, every key is a text.
                key.tag = f"{_TAG}str"
            return node

        def flatten_mapping(self, node: Any) -> None:
            super().flatten_mapping(node)
            # One of each key, the last: merges of merges would have it twice as often each time.
            kept = {
                (key.tag, key.value) if isinstance(key.value, str) else id(key): (key, value)
                for key, value in node.value
            }
            node.value = list(kept.values())

    for kind, pattern, begins in _SCALARS:
        Loader.add_implicit_resolver(f"{_TAG}{kind}", re.compile(rf"(?:{pattern})\Z"), begins)
    return Loader

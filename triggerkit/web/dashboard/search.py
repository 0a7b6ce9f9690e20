"""The filter of a list: qualifiers in one box, such as `status:failed task:embed since:1h`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from triggerkit.configuration.quantities import SECONDS
from triggerkit.web.dashboard.page import Asked

#: The parameter of the URL that has the box's text, and those that are not the filter's.
FILTER = "filter"
PAGING = ("cursor", "limit")

#: Values of a qualifier that are suggested.
MOST_SUGGESTED = 20

_QUALIFIED = re.compile(r"([a-z]+):(.*)", re.S)

#: A word in which a value begins with a quote, as a shell would have it; else quotes are a part of
#: it, as in public."a.b" or O'Brien, and so are backslashes.
_QUOTED = r"'[^']*'|\"[^\"]*\""
_WORD = re.compile(
    rf"((?:[a-z]+:)?)((?:{_QUOTED})(?:{_QUOTED}|[^\s'\"])*)(?=\s|$)|((?:\"[^\"]*\"|\S)+)"
)
_PIECE = re.compile(r"'([^']*)'|\"([^\"]*)\"|([^'\"]+)")


@dataclass(frozen=True, slots=True)
class Qualifier:
    """A name before a colon: an example of its values, and those that are suggested."""

    name: str
    example: str
    values: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What the filter becomes by one more qualifier; it is in it already, or not."""

    word: str
    text: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class Search:
    """A filter as the box shows it, its values by qualifier, and what is wrong with it."""

    text: str
    given: Mapping[str, str]
    problem: str | None
    example: str
    groups: Sequence[tuple[str, Sequence[Suggestion]]]

    @classmethod
    def of(
        cls,
        asked: Asked,
        qualifiers: Sequence[Qualifier],
        known: Mapping[str, Sequence[str]] | None = None,
        *,
        free: str | None = None,
    ) -> Self:
        """Read the filter of a page: from the box, and from parameters of the qualifiers' names,
        by which other pages link here. `known` are values to be suggested; a word without a
        qualifier is of `free`."""
        names = [qualifier.name for qualifier in qualifiers]
        given, problem = read_filter(asked.query.get(FILTER, ""), names, free)
        for name, value in asked.query.items():
            if name in names and name not in given:
                given[name] = value
            elif name not in (FILTER, *PAGING, *names):
                problem = f"there is no filter {name}; there are {', '.join(names)}"
        text = written(given, free)
        groups = [
            (one.name, _suggested(one.name, [*one.values, *(known or {}).get(one.name, ())], given))
            for one in qualifiers
        ]
        example = " ".join(f"{one.name}:{one.example}" for one in qualifiers[:4])
        return cls(text, given, problem, example, [group for group in groups if group[1]])

    @property
    def query(self) -> dict[str, str]:
        """Return what keeps the filter in a link."""
        return {FILTER: self.text}


def written(given: Mapping[str, str], free: str | None = None) -> str:
    """Return the text of a filter."""
    return " ".join(
        _quoted(value) if name == free else f"{name}:{_quoted(value)}"
        for name, value in given.items()
    )


def words_of(text: str) -> list[str]:
    """Return the words of what somebody typed; a value with spaces stands in quotes."""
    found = []
    for name, quoted, plain in _WORD.findall(text):
        found.append(plain or name + "".join(map("".join, _PIECE.findall(quoted))))
    return found


def moment_of(text: str | None) -> datetime | None:
    """Return a moment that is given as how long ago it was (`1h`), or in ISO 8601.

    Raises:
        ValueError: it is neither.
    """
    if text is None:
        return None
    try:
        return datetime.now(UTC) - timedelta(seconds=SECONDS.read(text))
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("write how long ago (1h, 30m, 7d) or 2026-01-31T12:00:00Z") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def read_filter(
    text: str, names: Sequence[str], free: str | None = None
) -> tuple[dict[str, str], str | None]:
    """Return the values of a filter's text by qualifier, and what is wrong with it."""
    given: dict[str, str] = {}
    problem = None
    for word in words_of(text):
        found = _QUALIFIED.fullmatch(word)
        if found is not None and found[1] in names:
            if found[2]:
                given[found[1]] = found[2]
        elif found is None and free is not None:
            given[free] = word
        else:
            problem = f"{word!r} is not understood; write {', '.join(f'{n}:…' for n in names)}"
    return given, problem


def _suggested(name: str, values: Sequence[str], given: Mapping[str, str]) -> list[Suggestion]:
    found = []
    for value in list(dict.fromkeys(values))[:MOST_SUGGESTED]:
        chosen = given.get(name) == value
        others = {n: v for n, v in given.items() if n != name}
        text = written(others if chosen else {**others, name: value})
        found.append(Suggestion(f"{name}:{_quoted(value)}", text, chosen))
    return found


def _quoted(value: str) -> str:
    return value if re.fullmatch(r"[^\s'\"\\]+", value) else shlex.quote(value)

"""What was typed into a form, and what is wrong with it: both stay until the form is taken."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from triggerkit.errors import EndpointConflict, InvalidEndpoint, NameTaken, TriggerkitError
from triggerkit.web.api.problems import problems_of


@dataclass(frozen=True, slots=True)
class Typed:
    """The fields of a form. Those of a list are `name.0`, `name.1`…, and below them `name.0.part`.

    `problems` are by field, in the words that commands and API have; `problem` is of no field.
    """

    fields: Mapping[str, str]
    problems: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def is_refused(self) -> bool:
        """Return whether something is wrong with it."""
        return bool(self.problems or self.problem)

    def text(self, name: str) -> str:
        """Return what a field has, without spaces around it; nothing where it is not there."""
        return self.fields.get(name, "").strip()

    def exact(self, name: str) -> str:
        """Return what a field has as it was typed."""
        return self.fields.get(name, "")

    def numbers(self, name: str) -> list[int]:
        """Return the numbers that a list has fields of, in their order."""
        found = (re.match(rf"{re.escape(name)}\.(\d{{1,4}})(?:\.|$)", key) for key in self.fields)
        return sorted({int(match[1]) for match in found if match is not None})

    def listed(self, name: str) -> list[str]:
        """Return the values of a list that are not empty."""
        values = (self.exact(f"{name}.{number}") for number in self.numbers(name))
        return [*dict.fromkeys(value for value in values if value.strip())]

    def wrong(self, name: str) -> str:
        """Return what is wrong with a field, or with what is below it."""
        below = f"{name}."
        return "; ".join(
            text for key, text in self.problems.items() if key == name or key.startswith(below)
        )

    def refused(self, error: TriggerkitError, where: str, known: Collection[str]) -> Self:
        """Return the form with what `error` says of it, by field where the form has the field:
        one of `known`. `where` is what the message begins with, the name of what is made."""
        problems: dict[str, str] = {}
        rest: list[str] = []
        if (one := _field_of(error)) in known:
            problems[one] = str(error)
        else:
            for line in str(error).splitlines():
                key, text = _placed(line, where)
                if key.partition(".")[0] in known:
                    problems[key] = f"{problems[key]}; {text}" if key in problems else text
                else:
                    rest.append(line)
        return replace(self, problems=problems, problem=" ".join(rest))


def _field_of(error: TriggerkitError) -> str:
    """Return the field that the whole of a message is about; nothing where it is about several."""
    if isinstance(error, NameTaken | EndpointConflict):
        return "name"
    return error.field or "" if isinstance(error, InvalidEndpoint) else ""


def _placed(line: str, where: str) -> tuple[str, str]:
    """Return the field that a line of a message is about, nothing where it is about none, and what
    it says. What is said of several fields together begins with one of them: `start='x' is …`."""
    found = problems_of(line, where)
    if found:
        loc, text = found[0]["loc"], str(found[0]["msg"])
        return ".".join(map(str, loc if isinstance(loc, list) else [])), text
    together = re.match(rf"{re.escape(where)}: ((\w+)=.+)", line)
    return ("", line) if together is None else (together[2], together[1])

"""Every command, found by walking the parser, with what people get wrong and machines do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import typer

from triggerkit.cli.main import application

#: Run until they are stopped, or start a program that is not ours.
LASTING = frozenset({"dev", "serve", "stream", "deliver", "worker", "psql", "tunnel"})

#: What a name, or another text, is called that nothing has.
NOWHERE = "nowhere_else"

#: What is typed for a parameter that must be given, by its name.
KNOWN = {
    "name": "copy_item",
    "consumer": "copy_item",
    "task": "copy_item",
    "table": "public.items",
    "tables": "public.items",
    "key": "1",
    "queue": "letters",
    "schedule": "send_letter",
    "url": "http://127.0.0.1:1/hook",
    "run_or_position": "1",
    "run_id": "run_00000000000000000000000000",
    "run_ids": "run_00000000000000000000000000",
    "backfill_id": "1",
    "position": "1",
    "start": "beginning",
    "when": "30m",
    "shell": "bash",
    "file": "sequin.yaml",
}

#: What is typed beside, so that there is something to do, and nothing is asked first.
MORE = {
    "consumers edit": ["--set", "batch_size=7"],
    "consumers replay": ["--yes"],
    "consumers delete": ["--yes"],
    "messages retry": ["--all"],
    "messages discard": ["--all", "--yes"],
    "queues limit": ["--concurrency", "3"],
    "endpoints edit": ["--url", "http://127.0.0.1:1/other"],
    "tunnel": ["--ports", "3001:outside", "--server", "ws://127.0.0.1:1", "--token", "@tasks.py"],
    "import": ["--output", "-"],
}

#: A parameter that means something else in one command.
SPECIAL = {("trigger", "task"): "send_letter"}

#: Names of endpoints, which are not those of consumers.
ENDPOINT = "outside"

Cut = Literal["pipe", "interrupt"]


@dataclass(frozen=True, slots=True)
class Case:
    """A command with its words and its settings; it may be cut short."""

    command: str
    arguments: list[str]
    settings: dict[str, str] = field(default_factory=dict)
    cut: Cut | None = None
    in_file: bool = False
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """A command as the parser has it."""

    words: tuple[str, ...]
    parameters: list[Any]

    @property
    def name(self) -> str:
        return " ".join(self.words)

    @property
    def takes_a_name(self) -> bool:
        """Return whether a word says what it is about."""
        return any(p.param_type_name == "argument" for p in self.parameters)

    def typed(self, *more: str, unknown: bool = False, bare: bool = False) -> list[str]:
        """Return the command with all that must be given, with its arguments, and unless `bare`
        with what it asks for besides."""
        words = list(self.words)
        for parameter in self.parameters:
            is_argument = parameter.param_type_name == "argument"
            if "--all" in MORE.get(self.name, []) and parameter.name == "position" and not bare:
                continue
            if is_argument or parameter.required:
                value = self._value(parameter, unknown=unknown and is_argument)
                words += [value] if is_argument else [parameter.opts[0], value]
        return [*words, *([] if bare else MORE.get(self.name, [])), *more]

    def mistyped(self) -> Iterator[list[str]]:
        """Yield the command with each number, choice or time that is none, and an option that
        there is not."""
        yield self.typed("--no-such-option")
        for parameter in self.parameters:
            if parameter.type_descriptor.annotation is str or parameter.multiple:
                continue
            name = getattr(parameter.type_descriptor.annotation, "__name__", "")
            if parameter.param_type_name == "argument":
                if name in ("int", "float"):
                    others = [
                        w
                        for p in self.parameters
                        if p is not parameter and p.param_type_name == "argument"
                        for w in [self._value(p)]
                    ]
                    yield [*self.words, *others, "twelve"]
            elif not getattr(parameter, "is_flag", False) and name not in ("Path", "list"):
                yield self.typed(parameter.opts[0], "twelve")

    def _value(self, parameter: Any, *, unknown: bool = False) -> str:
        if parameter.type_descriptor.annotation is int:
            return "987654" if unknown else "1"
        if unknown and parameter.name != "when":
            return NOWHERE
        if self.words[0] == "endpoints" and parameter.name == "name":
            return ENDPOINT if self.words[1] != "create" else NOWHERE
        return SPECIAL.get((self.name, parameter.name)) or KNOWN.get(parameter.name, NOWHERE)


def commands() -> list[Command]:
    """Return every command that there is."""
    return list(_walk(typer.main.get_command(application()), ()))


def _walk(command: Any, words: tuple[str, ...]) -> Iterator[Command]:
    inner: Mapping[str, Any] | None = getattr(command, "commands", None)
    if inner is None:
        yield Command(words, [p for p in command.params if p.name != "help"])
        return
    if getattr(command, "invoke_without_command", False) and words:
        # It has commands of its own, and is one.
        yield Command(words, [p for p in command.params if p.name != "help"])
    for name, one in inner.items():
        yield from _walk(one, (*words, name))

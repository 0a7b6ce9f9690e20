"""The documents say what the code does: settings, names, commands."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from dotenv import dotenv_values
from typer import BadParameter
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

import triggerkit
from triggerkit.cli.main import application
from triggerkit.settings import Settings
from triggerkit.why.answer import Code

ROOT = Path(__file__).parents[2]

PAGES = (
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("examples/**/*.md")),
)

BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)

#: A setting's line in `.env.example`, left out by a `#` without a space.
SETTING = re.compile(r"^#([A-Z][A-Z_]+)=(.*)$", re.MULTILINE)

#: `triggerkit …` in a line of text or of a shell, up to what ends a command there.
COMMAND = re.compile(r"(?:^|[\s(/])triggerkit ([a-z][^|>&)\"#]*)")

#: Modules that the documents have their reader write.
READERS_OWN = frozenset({"tasks"})


def blocks(page: Path, *languages: str) -> list[str]:
    """The code blocks of a page in one of `languages`."""
    return [code for language, code in BLOCK.findall(page.read_text()) if language in languages]


def pages_with(*languages: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, *languages)]


def commands(text: str) -> Iterator[list[str]]:
    """Each command line of triggerkit in `text`, as its arguments."""
    for line in text.replace("\\\n", " ").splitlines():
        for found in COMMAND.findall(line):
            yield shlex.split(found)


def told_commands(page: Path) -> list[list[str]]:
    """The command lines in a page's shell blocks and in its inline code."""
    text = page.read_text()
    inline = re.findall(r"`(triggerkit [^`\n]*)`", BLOCK.sub("", text))
    prompts = [
        line.partition("$ ")[2]
        for code in blocks(page, "")
        for line in code.splitlines()
        if line.startswith("$ ")
    ]
    lines = [*blocks(page, "sh"), *prompts, *inline]
    return [command for line in lines for command in commands(line)]


def leaf_commands(
    group: TyperGroup, prefix: str = ""
) -> Iterator[tuple[str, TyperCommand | TyperGroup]]:
    """Every command of the CLI that is not a group alone, by its words."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            if command.invoke_without_command:
                yield f"{prefix}{name}", command
            yield from leaf_commands(command, f"{prefix}{name} ")
        else:
            assert isinstance(command, TyperCommand)
            yield f"{prefix}{name}", command


@pytest.fixture(scope="module")
def cli() -> TyperGroup:
    """The command `triggerkit`."""
    group = get_command(application())
    assert isinstance(group, TyperGroup)
    return group


def parse(cli: TyperGroup, arguments: list[str]) -> None:
    """Parse a command line without running it; a name alone only has to exist.

    Raises:
        UsageError: there is no such command, option or value.
    """
    known = dict(leaf_commands(cli))
    words = next((n for n in (3, 2) if " ".join(arguments[:n]) in known), 1)
    name = " ".join(arguments[:words])
    if name not in known:
        raise BadParameter(f"there is no command {name!r}")
    if arguments[words:]:
        known[name].make_context(name, arguments[words:])


def test_the_example_names_every_setting() -> None:
    told = [name for name, _ in SETTING.findall((ROOT / ".env.example").read_text())]
    assert told == list(dict.fromkeys(told)), "a setting is told twice"
    assert set(told) == {name.upper() for name in Settings.model_fields}


def test_the_example_has_the_defaults() -> None:
    for name, told in SETTING.findall((ROOT / ".env.example").read_text()):
        default = Settings.model_fields[name.lower()].default
        assert told == ("" if default is None else str(default)), name


def test_the_example_changes_nothing_when_it_is_copied() -> None:
    assert dotenv_values(ROOT / ".env.example") == {}


def test_the_example_explains_each_setting() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    for number, line in enumerate(lines):
        if SETTING.match(line):
            above = lines[number - 1]
            assert above.startswith("# ") or SETTING.match(above), f"no comment above {line}"


@pytest.mark.parametrize("page", pages_with("python"), ids=lambda page: page.name)
def test_names_in_python_blocks_can_be_imported(page: Path) -> None:
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom) and node.module not in READERS_OWN:
                assert node.module is not None
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


def test_the_guide_lists_what_is_exported() -> None:
    _, _, names = (ROOT / "docs" / "guide.md").read_text().partition("## The names in `triggerkit`")
    listed = re.findall(r"^\| `(\w+)", names, re.MULTILINE)
    assert sorted(listed) == sorted(triggerkit.__all__)
    assert all(hasattr(triggerkit, name) for name in triggerkit.__all__)


def test_the_readme_and_the_pages_list_every_command_and_no_other(cli: TyperGroup) -> None:
    row = re.compile(r"^\| `triggerkit ([a-z -]+)` \|", re.MULTILINE)
    listed = {name for page in PAGES for name in row.findall(page.read_text())}
    shown = {name for name, command in leaf_commands(cli) if not command.hidden}
    assert sorted(listed) == sorted(shown)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_parses(page: Path, cli: TyperGroup) -> None:
    for arguments in told_commands(page):
        try:
            parse(cli, arguments)
        except Exception as error:
            pytest.fail(f"triggerkit {shlex.join(arguments)}: {error}")


def test_command_lines_are_found_in_the_readme_and_the_guide() -> None:
    assert ["runs", "list", "--limit", "1", "--json"] in told_commands(ROOT / "docs" / "guide.md")
    assert ["status", "--json"] in told_commands(ROOT / "README.md")


def test_the_makefile_has_the_targets_that_are_named() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"`make ([a-z]+)`", page.read_text())
        assert set(named) <= targets, page.name


def test_the_readme_is_neither_thin_nor_long() -> None:
    assert 90 <= len((ROOT / "README.md").read_text().splitlines()) <= 180


def test_the_guide_lists_every_code_of_why() -> None:
    page = (ROOT / "docs" / "guide.md").read_text()
    assert not [code for code in get_args(Code) if f"`{code}`" not in page]

"""`import`: writes `triggerkit.toml` from the configuration of another system."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import typer

from triggerkit.compat.sequin.configuration.convert import convert
from triggerkit.compat.sequin.configuration.document import read_document
from triggerkit.compat.sequin.configuration.report import Imported
from triggerkit.compat.sequin.configuration.toml import toml_of
from triggerkit.errors import ConfigurationError
from triggerkit.settings import own_environment
from triggerkit.textfile import read_text

#: Where it is written unless it is said.
TARGET = Path("triggerkit.toml")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("import")(import_file)


def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A sequin.yaml.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write; - is to print.")
    ] = TARGET,
    append: Annotated[
        bool, typer.Option("--append", help="Add to the file, whose own tables stay.")
    ] = False,
) -> None:
    """Write the endpoints and consumers of a sequin.yaml; name what has no counterpart."""
    if output != Path("-") and output.exists() and not append:
        raise ConfigurationError(
            f"{output} is there already: add to it with --append, or write another file with "
            "--output FILE, or print with --output -"
        )
    imported = convert(read_document(file), own_environment(Path.cwd()))
    text = toml_of(imported, file.name)
    if not (output.exists() or _has_tasks(output.parent)):
        # Else every command would look for a module of that name.
        text = f"tasks = []\n\n{text}"
    if output == Path("-"):
        print(text, end="")
        return
    _write(output, text, imported)
    for note in imported.notes:
        print(note)
    print(_summary(imported, output))


def _has_tasks(folder: Path) -> bool:
    return (folder / "tasks").is_dir() or (folder / "tasks.py").exists()


def _write(output: Path, text: str, imported: Imported) -> None:
    before = read_text(output) if output.exists() else ""
    _require_free(output, before, imported)
    try:
        output.write_text(f"{before.rstrip()}\n\n{text}" if before.strip() else text, "utf-8")
    except OSError as error:
        raise ConfigurationError(f"--output {output}: {error.strerror}") from None


def _require_free(output: Path, before: str, imported: Imported) -> None:
    """See that a file that is added to has none of the names.

    Raises:
        ConfigurationError: it has, or is no TOML.
    """
    try:
        known = tomllib.loads(before)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{output}: {error}") from None
    for kind, tables in (("endpoints", imported.endpoints), ("consumers", imported.consumers)):
        has = known.get(kind)
        taken = sorted(tables.keys() & has.keys()) if isinstance(has, dict) else []
        if taken:
            raise ConfigurationError(
                f"{output} has [{kind}.{taken[0]}] already: rename or remove it there"
            )


def _summary(imported: Imported, output: Path) -> str:
    consumers, endpoints = len(imported.consumers), len(imported.endpoints)
    lines = [
        (
            f"wrote {output}: {consumers} consumer{'' if consumers == 1 else 's'}, "
            f"{endpoints} endpoint{'' if endpoints == 1 else 's'}"
        )
    ]
    named = [f"{n}={'' if v is None else v}" for n, v in imported.settings.items()]
    if named:
        lines.append(f"set in .env: {', '.join(named)}")
    return "\n".join([*lines, "look at it, then run: triggerkit plan"])

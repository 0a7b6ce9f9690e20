"""`completion`: prints what makes a shell complete the commands."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Annotated, Any, Final

import typer

from triggerkit.errors import ConfigurationError

SHELLS: Final = ("bash", "zsh", "fish")

PROGRAM: Final = "triggerkit"

#: How a shell asks for completions.
VARIABLE: Final = "_TRIGGERKIT_COMPLETE"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(completion)


def completion(
    shell: Annotated[
        str | None, typer.Argument(help="bash, zsh or fish; by default that of $SHELL.")
    ] = None,
) -> None:
    """Print a shell's completion; for bash: eval "$(triggerkit completion bash)"."""
    name = shell or os.path.basename(os.environ.get("SHELL", ""))
    if name not in SHELLS:
        raise ConfigurationError(
            f"no completion for {name or 'an unknown shell'}; known are {', '.join(SHELLS)}: "
            "triggerkit completion bash"
        )
    print(_typer().get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=name))


def prepare() -> None:
    """Have the next call of the command line answer a shell that asks for completions."""
    _typer().completion_init()


def _typer() -> Any:
    # It has these for its own option alone, and exports them to nobody.
    return import_module("typer.completion")

"""The command's root: its groups, and how errors end it."""

from __future__ import annotations

import logging
import sys

import typer
from rich.console import Console
from rich.markup import escape

from triggerkit.cli import processes, project, runs
from triggerkit.errors import TriggerkitError
from triggerkit.supervisor.logs import is_child

logger = logging.getLogger(__name__)

app = typer.Typer(
    name="triggerkit",
    help="A row changes in Postgres, a Python task runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
processes.register(app)
project.register(app)
runs.register(app)


def run() -> None:
    """Run the command; an error of ours prints its message and ends with its exit code."""
    try:
        app()
    except TriggerkitError as error:
        if is_child():
            logger.error("%s", error)
        else:
            stderr = Console(stderr=True, highlight=False, soft_wrap=True)
            stderr.print(f"[red]error:[/] {escape(str(error))}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        if not is_child():
            raise
        logger.exception("ended by an error that should not happen; please report it")
        sys.exit(1)

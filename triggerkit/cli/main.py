"""The command's root: its groups, and how errors end it."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
from importlib import import_module
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

from triggerkit.cli.leaving import leave_in_time
from triggerkit.cli.setting_names import PREFIX, unknown_settings
from triggerkit.errors import ConfigurationError, TriggerkitError
from triggerkit.settings import Settings, own_environment
from triggerkit.supervisor.logs import is_child
from triggerkit.terminal.console import TerminalConsole

logger = logging.getLogger(__name__)

#: Objects made between two collections of garbage. Python's own 700 is less than one batch of
#: messages makes, none of which is garbage: a fifth of the time of every process went there.
COLLECT_AFTER: Final = 50_000

#: The process of a container that is started first: a signal that it has no handler for does not
#: end it.
FIRST: Final = 1

#: The descriptor of the last of the standard streams.
STDERR: Final = 2

#: Which module has a command: only that one is imported, since starting takes as long as importing.
MODULES: Final = {
    "init": "project.init",
    "dev": "processes.dev",
    "serve": "processes.serve",
    "stream": "processes.stream",
    "deliver": "processes.deliver",
    "worker": "processes.worker",
    "check": "project.project",
    "plan": "project.apply",
    "apply": "project.apply",
    "databases": "captured.databases",
    "consumers": "captured.consumers",
    "status": "status",
    "tasks": "project.project",
    "roles": "project.project",
    "upgrade": "project.project",
    "sql": "project.project",
    "trigger": "executed.trigger",
    "runs": "executed.runs",
    "queues": "executed.queues",
    "schedules": "executed.queues",
    "workers": "executed.queues",
    "trace": "trace",
    "why": "why",
    "verify": "verify",
    "messages": "captured.messages",
    "endpoints": "captured.endpoints",
    "models": "project.models",
    "import": "project.importing",
    "backfill": "captured.backfill",
    "events": "captured.events",
    "tunnel": "captured.tunnel",
    "psql": "project.psql",
    "completion": "completion",
}


def application(command: str | None = None) -> typer.Typer:
    """Return the command line, with all commands or with those of the module that has `command`."""
    app = typer.Typer(
        name="triggerkit",
        help="A row changes in Postgres, a Python task runs.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        # Rich leaves bold text and frames where NO_COLOR asks for none.
        rich_markup_mode=None if os.environ.get("NO_COLOR") else "rich",
    )
    # A callback, so that an application of one command is still asked for it by its name.
    app.callback()(_root)
    modules = [MODULES[command]] if command in MODULES else dict.fromkeys(MODULES.values())
    for name in modules:
        import_module(f"triggerkit.cli.{name}").register(app)
    return app


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"triggerkit {version('triggerkit')}")
        raise typer.Exit


def _root(
    version: Annotated[  # noqa: ARG001 - its callback does it, before a command is asked for
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """A row changes in Postgres, a Python task runs."""
    if not is_child():
        _warn_of_unknown_settings()


def _share_env_file() -> None:
    """Let tasks and the app have what `.env` says, in every command as in `dev`."""
    # Whoever reads the settings says what is wrong with the file.
    with contextlib.suppress(TriggerkitError, OSError, ValueError):
        os.environ.update(own_environment(Path.cwd()))


def _warn_of_unknown_settings() -> None:
    try:
        names = own_environment(Path.cwd())
    except (TriggerkitError, OSError):
        # Whoever reads the settings says so.
        return
    known = {name.upper() for name in Settings.model_fields}
    if any(name.startswith(PREFIX) and name not in known for name in names):
        for line in unknown_settings(names, typer.main.get_command(application())):
            print(f"warning: {line}", file=sys.stderr)


def run() -> None:
    """Run the command; an error of ours prints its message and ends with its exit code."""
    if os.getpid() == FIRST:
        # As it ends all others, until a command has a handler of its own.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    code: object = 1
    try:
        _run()
    except SystemExit as end:
        code = end.code or 0
        raise
    finally:
        # The project's modules may have started threads as they were imported.
        leave_in_time(code if isinstance(code, int) else 1)


def _open_standard_streams() -> None:
    """Have something under each standard stream that the process was started without: what is
    opened next would take its number, and be written to."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for as long as it lives


def _run() -> None:
    _open_standard_streams()
    gc.set_threshold(COLLECT_AFTER, 20, 50)
    for stream in (sys.stdout, sys.stderr):
        # What a terminal has no character for is written as its code.
        if isinstance(stream, TextIOWrapper):
            # A fork has another file under a stream than it was opened with.
            with contextlib.suppress(OSError):
                stream.reconfigure(errors="backslashreplace")
    # Whoever waits for a connection is told of its end by an exception.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    if not is_child():
        _share_env_file()
    if "_TRIGGERKIT_COMPLETE" in os.environ:
        import_module("triggerkit.cli.completion").prepare()
    try:
        _require_text(sys.argv[1:])
        application(sys.argv[1] if len(sys.argv) > 1 else None)()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            # As Rich ends what it prints. What is left of the output is not tried once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        # Imported when there is an error: it knows the errors of every client.
        explained = import_module("triggerkit.cli.failure").explained(error)
        if explained is not None:
            _print_error(explained)
            sys.exit(explained.exit_code)
        if not is_child():
            raise
        logger.exception("internal error; please report it")
        sys.exit(1)


def _is_unread() -> bool:
    """Return whether whoever read what is printed has had enough, as `head` has."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return True
    return False


def _require_text(arguments: list[str]) -> None:
    """See that all that was typed is text: no database, and no JSON, has anything else.

    Raises:
        ConfigurationError: it is not.
    """
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise ConfigurationError(
                f"{argument!r} is not UTF-8; type it in that encoding"
            ) from None


def _print_error(error: TriggerkitError) -> None:
    if is_child():
        logger.error("%s", error)
    else:
        stderr = TerminalConsole(stderr=True, highlight=False, soft_wrap=True)
        stderr.print(f"[red]error:[/] {escape(str(error))}")

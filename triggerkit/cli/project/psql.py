"""`psql`: opens Postgres's own client on the project's database."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from psycopg.conninfo import make_conninfo

from triggerkit.configuration.addresses import read_database_url
from triggerkit.embedded.programs import POSTGRES_FOLDERS, POSTGRES_PACKAGE
from triggerkit.errors import ConfigurationError
from triggerkit.settings import Settings

#: What is passed on as it is.
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(context_settings=PASSED_ON)(psql)


def psql(
    context: typer.Context,
    state: Annotated[
        bool, typer.Option("--state", help="Open the database that has the schema triggerkit.")
    ] = False,
) -> None:
    """Open psql on the database; what follows is psql's own: triggerkit psql -c 'select 1'."""
    settings = Settings.load()
    address, password = without_password(settings.state_dsn if state else settings.source_dsn)
    program = psql_program()
    # Not on the command line, which every user of the machine can list.
    environment = {**os.environ, **({} if password is None else {"PGPASSWORD": password})}
    os.execve(program, [str(program), address, *context.args], environment)  # noqa: S606


def without_password(url: str) -> tuple[str, str | None]:
    """Return a connection string for libpq without its password, and the password."""
    parts: dict[str, Any] = read_database_url(url)
    password = parts.pop("password", None)
    return make_conninfo(**parts), password


def psql_program() -> Path:
    """Return the path of `psql`: the system's, else that of the embedded Postgres.

    Raises:
        ConfigurationError: there is none.
    """
    if found := shutil.which("psql"):
        return Path(found)
    spec = find_spec(POSTGRES_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for version in POSTGRES_FOLDERS.values():
            program = Path(folder) / version / "bin" / "psql"
            if os.access(program, os.X_OK):
                return program
    raise ConfigurationError(
        "psql is not installed; install it with: apt-get install postgresql-client, "
        "brew install libpq, or pip install 'triggerkit[dev]'"
    )

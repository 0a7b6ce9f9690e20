"""`init`: writes a project that runs, in an empty folder or beside an app that is there."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final

import typer

from triggerkit.errors import ConfigurationError
from triggerkit.settings import own_environment

#: The files of a project, and what each is written as.
FILES: Final = {
    "triggerkit.toml": "triggerkit.toml",
    "tasks.py.txt": "tasks.py",
    "schema.py.txt": "schema.py",
    "test_tasks.py.txt": "test_tasks.py",
    "env.example": ".env.example",
    "README.md": "README.md",
}

#: What is written where the project has that name already.
INSTEAD: Final = {"tasks.py": "triggerkit_tasks.py", "README.md": "TRIGGERKIT.md"}

#: Where an ASGI app is looked for, and how it is made.
APPS: Final = ("main.py", "app.py", "app/main.py", "src/main.py", "asgi.py")
_APP = re.compile(
    r"^(\w+)(?:: *\w+)? *= *(?:FastAPI|Starlette|Litestar|Quart|get_asgi_application)\(",
    re.MULTILINE,
)

#: What no repository should have.
IGNORED: Final = (".triggerkit/", ".env")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(init)


def init(
    folder: Annotated[Path, typer.Argument(help="Where; by default here.")] = Path(),
) -> None:
    """Write triggerkit.toml, a task, its test and settings; what is there already is kept."""
    if (folder / "triggerkit.toml").exists():
        raise ConfigurationError(
            f"{folder / 'triggerkit.toml'} is there already: this is a project of triggerkit; "
            "start it with: triggerkit dev"
        )
    for line in write_project(folder):
        print(line)


def write_project(folder: Path) -> list[str]:
    """Write the files of a project into `folder` and return what to tell of it.

    Raises:
        ConfigurationError: a file cannot be written.
    """
    names = {source: _free(folder, name) for source, name in FILES.items()}
    module = names["tasks.py.txt"].removesuffix(".py")
    has_tasks = (folder / "tasks").is_dir()
    if has_tasks:
        # A package of that name is searched with all its modules.
        names["tasks.py.txt"], module = _free(folder, "tasks/orders.py"), "tasks.orders"
    app = find_app(folder)
    values = {
        "tasks": "tasks" if has_tasks else module,
        "module": module,
        "app": "" if app is None else f'app = "{app}"\n',
        "folder": folder.resolve().name,
    }
    told = [] if app is None else [f"found the app {app}: triggerkit serves it beside its routes"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source, name in names.items():
            text = (files("triggerkit.cli.project") / "starter" / source).read_text(
                encoding="utf-8"
            )
            for key, value in values.items():
                text = text.replace(f"<<{key}>>", value)
            (folder / name).write_text(text, encoding="utf-8")
            told.append(f"wrote {name}")
        _ignore(folder / ".gitignore")
    except OSError as error:
        raise ConfigurationError(f"{error.filename}: {error.strerror}") from None
    if own_environment(folder).get("DATABASE_URL"):
        told.append("DATABASE_URL is set: make the table there with: python schema.py")
    return [*told, f"start it with: triggerkit dev; {names['README.md']} says what to try"]


def find_app(folder: Path) -> str | None:
    """Return the ASGI app in `folder` as `module:name`, None where none is seen."""
    for name in APPS:
        path = folder / name
        if path.is_file():
            found = _APP.search(path.read_text(encoding="utf-8", errors="replace"))
            if found is not None:
                return f"{name.removesuffix('.py').replace('/', '.')}:{found[1]}"
    return None


def _free(folder: Path, name: str) -> str:
    """Return `name`, or another where the project has it."""
    if not (folder / name).exists():
        return name
    other = INSTEAD.get(name, f"triggerkit_{name.replace('/', '_').lstrip('.')}")
    if (folder / other).exists():
        raise ConfigurationError(f"{folder / name} and {other} are there already; move one away")
    return other


def _ignore(path: Path) -> None:
    known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    missing = [line for line in IGNORED if line not in known]
    if missing:
        path.write_text("\n".join([*known, *missing, ""]), encoding="utf-8")

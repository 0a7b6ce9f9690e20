"""The list of all modules on docs/architecture.md; `python -m tests.module_index` writes it."""

from __future__ import annotations

import ast
import re

from tests import ROOT

PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = ROOT / "triggerkit"

HEADING = "## Every module\n"

#: Names that many modules have, and that tell nothing of one.
COMMON = frozenset({"logger", "console", "register", "main", "T"})


def sentence(source: str) -> str:
    """Return the first sentence of a module's docstring."""
    text = " ".join((ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.!?]) (?=[A-Z`])", text)[0].rstrip(".")


def names(source: str) -> list[str]:
    """Return what a module has for others: its constants, classes and functions, in order."""
    found = []
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign):
            found += [target.id for target in statement.targets if isinstance(target, ast.Name)]
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.append(statement.name)
    return [name for name in found if not name.startswith("_") and name not in COMMON]


def index() -> str:
    """Return the section, written from the modules' own docstrings."""
    lines = [
        HEADING,
        "Written by `make format`: the docstrings, and what each has for others.\n",
    ]
    folder = None
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda path: (path.parent, path.name)):
        if path.name in ("__init__.py", "__main__.py"):
            continue
        if path.parent != folder:
            folder = path.parent
            inside = folder.relative_to(PACKAGE)
            lines.append(f"\n**`{inside if inside.parts else '.'}/`**\n")
        source = path.read_text()
        public = ", ".join(f"`{name}`" for name in names(source))
        lines.append(f"- `{path.name}`: {sentence(source)}{public and f' ({public})'}")
    return "\n".join(lines) + "\n"


def written() -> str:
    """Return the page with the section as it should be; the section is the page's last."""
    return PAGE.read_text().partition(HEADING)[0].rstrip() + "\n\n" + index()


if __name__ == "__main__":
    PAGE.write_text(written())

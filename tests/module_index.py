"""The list of all modules on docs/architecture.md; `python -m tests.module_index` writes it."""

from __future__ import annotations

import ast
import re

from tests import ROOT

PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = ROOT / "triggerkit"

HEADING = "## Every module\n"


def sentence(source: str) -> str:
    """Return the first sentence of a module's docstring."""
    text = " ".join((ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.!?]) (?=[A-Z`])", text)[0].rstrip(".")


def index() -> str:
    """Return the section, written from the modules' own docstrings."""
    lines = [HEADING, "Written from their docstrings by `make format`.\n"]
    folder = None
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda path: (path.parent, path.name)):
        if path.name in ("__init__.py", "__main__.py"):
            continue
        if path.parent != folder:
            folder = path.parent
            inside = folder.relative_to(PACKAGE)
            lines.append(f"\n**`{inside if inside.parts else '.'}/`**\n")
        lines.append(f"- `{path.name}`: {sentence(path.read_text())}")
    return "\n".join(lines) + "\n"


def written() -> str:
    """Return the page with the section as it should be; the section is the page's last."""
    return PAGE.read_text().partition(HEADING)[0].rstrip() + "\n\n" + index()


if __name__ == "__main__":
    PAGE.write_text(written())

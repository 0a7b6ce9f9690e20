"""Write what is imported as `triggerkit.toml`."""

from __future__ import annotations

import re

from triggerkit.compat.sequin.configuration.report import Imported
from triggerkit.configuration.toml_text import toml_table


def toml_of(imported: Imported, source: str) -> str:
    """Return the tables, with the notes above them as comments; `source` names the file."""
    lines = [f"# Made of {_one_line(source)} by `triggerkit import`."]
    if imported.notes:
        lines += ["#", "# Left out, or to be done by hand:"]
        lines += [f"#  - {_one_line(note)}" for note in imported.notes]
    for kind, tables in (("endpoints", imported.endpoints), ("consumers", imported.consumers)):
        for name, values in tables.items():
            lines += ["", *toml_table(kind, name, values)]
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text)

"""Names of tables as they are written and shown: `schema.table`, quoted where a part has a dot."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple, Self

from triggerkit.errors import ConfigurationError

_QUOTED: Final = re.compile(r'"(?:[^"]|"")+"')
_ENDS_QUOTED: Final = re.compile(rf"(?:(.*)\.)?({_QUOTED.pattern})", re.DOTALL)


class TableName(NamedTuple):
    """A table by schema and name. As text it is `schema.table`, a part with a dot or a quote as
    Postgres writes it: `public."a.b"`."""

    schema: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `schema.table`; without a schema it is `public`. Capitals need no quotes.

        Raises:
            ConfigurationError: `text` is not a table's name.
        """
        ends_quoted = _ENDS_QUOTED.fullmatch(text)
        if ends_quoted is not None:
            schema, name = ends_quoted.groups()
        else:
            schema, dot, name = text.rpartition(".")
            schema = schema if dot else None
        try:
            return cls("public" if schema is None else _read(schema), _read(name))
        except ValueError:
            raise ConfigurationError(
                f"{text!r} is not a table; write it as schema.table, and a part that has a dot in "
                "double quotes"
            ) from None

    def __str__(self) -> str:
        return table_text(*self)


@lru_cache(maxsize=65536)
def table_text(schema: str, name: str) -> str:
    """Return the text of a table's name: that of a `TableName`, and of `triggerkit.table_text` in
    the state."""
    return f"{_written(schema)}.{_written(name)}"


def _read(part: str) -> str:
    if _QUOTED.fullmatch(part):
        return part[1:-1].replace('""', '"')
    if not part or part.startswith('"'):
        raise ValueError
    return part


def _written(part: str) -> str:
    if "." not in part and '"' not in part:
        return part
    doubled = part.replace('"', '""')
    return f'"{doubled}"'

"""One fact looked at, and how its remedy is written."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql


@dataclass(frozen=True, slots=True)
class Check:
    """One fact looked at. `remedy` is the SQL, setting or command that mends it when not `ok`.

    What is not `required` is advice: nothing fails by it.
    """

    name: str
    ok: bool
    detail: str
    remedy: str | None = None
    required: bool = True

    @property
    def failed(self) -> bool:
        """Return whether this keeps rows from running their tasks."""
        return self.required and not self.ok


def quoted(*name: str) -> str:
    """Return a name in SQL, such as `"public"."posts"`."""
    return sql.Identifier(*name).as_string(None)


def literal(value: str) -> str:
    """Return a string in SQL."""
    return sql.Literal(value).as_string(None)

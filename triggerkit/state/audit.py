"""Noting in the audit what was changed, and by whom."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.types.json import Jsonb

_NOTE = """
INSERT INTO triggerkit.audit (actor, action, subject, detail) VALUES (%s, %s, %s, %s)
"""


async def note(
    connection: psycopg.AsyncConnection,
    actor: str,
    action: str,
    subject: str,
    detail: dict[str, Any] | None = None,
) -> None:
    """Leave a line; `actor` is who did it, such as `cli:alice`."""
    values = [actor, action, subject, None if detail is None else Jsonb(detail)]
    await connection.execute(_NOTE, values)

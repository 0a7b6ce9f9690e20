"""The audit through the API: what was changed by a command or through the API, and by whom."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from psycopg.rows import class_row
from pydantic import Field

from triggerkit.web.api.operation import Call, Given, Page

_LIST = """
SELECT id, at, actor, action, subject, detail FROM triggerkit.audit
WHERE id < coalesce(%s, 9223372036854775807) ORDER BY id DESC LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change. `actor` is `api`, `apply`, or `cli:` and who called the command."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: Any


class Latest(Given):
    """A part of the list; `cursor` is the `next` of the part before."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    cursor: Annotated[int | None, Field(ge=0, le=2**63 - 1)] = None


async def list_changes(call: Call, query: Latest) -> Page[AuditEntry]:
    """Return the entries of the audit, newest first."""
    async with call.state() as state, state.cursor(row_factory=class_row(AuditEntry)) as cursor:
        await cursor.execute(_LIST, [query.cursor, query.limit])
        found = await cursor.fetchall()
    following = str(found[-1].id) if len(found) == query.limit else None
    return Page(data=found, next=following)

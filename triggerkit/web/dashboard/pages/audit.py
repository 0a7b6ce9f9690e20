"""The page of the audit: what was changed, when, and by whom."""

from __future__ import annotations

from triggerkit.web.api.audit import Latest, list_changes
from triggerkit.web.dashboard.page import Answer, Asked, Route, Shown


async def show_audit(asked: Asked) -> Answer:
    """Show the newest changes."""
    wanted = Latest.model_validate(asked.query)
    found = await list_changes(asked.call, wanted)
    values = {
        "changes": found.data,
        "first": asked.link("audit") if wanted.cursor is not None else None,
        "next": asked.link("audit", cursor=found.next) if found.next else None,
    }
    return Shown("audit.html", "Audit", values)


ROUTES = (Route("/audit", show_audit),)

"""Rendering pages: one environment, in which whatever a template writes is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from triggerkit.lsn import Lsn
from triggerkit.web.dashboard.files import VERSION
from triggerkit.web.dashboard.page import Asked, Shown
from triggerkit.web.dashboard.values import (
    ago,
    as_typed,
    counted,
    exact,
    finalized,
    milliseconds,
    one_line,
    pretty,
    row_of,
    row_text,
    short,
    short_place,
    size,
    span,
)

_FOLDER = Path(__file__).parent

#: The pages that the navigation leads to, by path and name.
NAVIGATION: Final = (
    ("", "Overview"),
    ("runs", "Runs"),
    ("tasks", "Tasks"),
    ("queues", "Queues"),
    ("errors", "Errors"),
    ("schedules", "Schedules"),
    ("trace", "Trace"),
    ("consumers", "Consumers"),
    ("messages", "Messages"),
    ("endpoints", "Endpoints"),
    ("events", "Events"),
    ("databases", "Databases"),
    ("connect", "Connect"),
    ("audit", "Audit"),
)

_TEMPLATES = Environment(
    loader=FileSystemLoader(_FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=finalized,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters.update(
    ago=ago,
    as_typed=as_typed,
    bytes=size,
    counted=counted,
    exact=exact,
    duration=milliseconds,
    lsn=lambda number: str(Lsn(number)),
    one_line=one_line,
    pretty=pretty,
    row_of=row_of,
    row_text=row_text,
    short=short,
    short_place=short_place,
    span=span,
)


def render(asked: Asked, page: Shown) -> str:
    """Return the page as HTML."""
    given: dict[str, Any] = {
        **page.values,
        "title": page.title,
        "live": page.is_live and page.status == 200 and "cursor" not in asked.query,
        "link": asked.link,
        "base": asked.base,
        "session": asked.session,
        "may_change": asked.session is not None and asked.session.may_change,
        "hides": asked.call.settings.triggerkit_hide_values,
        "query": asked.request.query_params.get("q", ""),
        "here": asked.request.url.path.removeprefix(asked.request.scope.get("root_path", "")),
        "navigation": NAVIGATION,
        "static": f"{asked.base}/static/{VERSION}",
    }
    return _TEMPLATES.get_template(page.template).render(given)

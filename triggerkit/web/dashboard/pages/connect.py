"""The page that shows how to connect: a database, a client, a receiver, and which key opens what,
each as a snippet to copy."""

from __future__ import annotations

from triggerkit.consumers.source.database import CaptureNames
from triggerkit.web.dashboard.page import Answer, Asked, Route, Shown


async def show_connect(asked: Asked) -> Answer:
    """Show the snippets with the names that are set; no secret."""
    settings = asked.call.settings
    names = CaptureNames.of(settings)
    followed = [table for task in asked.call.tasks if task.on for table in task.on.tables]
    values = {
        "url": settings.public_url,
        "publication": names.publication or "triggerkit",
        "table": min(followed, default="public.posts"),
        "task": min((task.name for task in asked.call.tasks), default="my_task"),
        "keys": [
            ("TRIGGERKIT_SECRET_KEY", settings.triggerkit_secret_key is not None,
             "opens the API and this dashboard"),
            ("TRIGGERKIT_READ_KEY", settings.triggerkit_read_key is not None,
             "opens both for looking alone"),
            ("TRIGGERKIT_WEBHOOK_SECRET", settings.triggerkit_webhook_secret is not None,
             "is the bearer of the webhook routes; a list rotates it"),
            ("TRIGGERKIT_ENCRYPTION_KEY", settings.triggerkit_encryption_key is not None,
             "encrypts the headers and signing secrets of endpoints; a list rotates it"),
            ("TRIGGERKIT_METRICS_TOKEN", settings.triggerkit_metrics_token is not None,
             "closes /metrics to everybody else"),
        ],
    }  # fmt: skip
    return Shown("connect.html", "Connect", values, is_live=False)


ROUTES = (Route("/connect", show_connect),)

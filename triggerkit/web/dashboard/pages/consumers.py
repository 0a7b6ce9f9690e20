"""The pages of consumers: all of them, and one with its backfills and its parked messages."""

from __future__ import annotations

from triggerkit.web.api.captured.backfills import Which, list_backfills
from triggerkit.web.api.captured.consumers import list_consumers, show_consumer, show_health
from triggerkit.web.api.captured.messages import ParkedFilter, list_messages
from triggerkit.web.dashboard.forms.declared import declared_at
from triggerkit.web.dashboard.page import Answer, Asked, Route, Shown

#: Parked messages on a page.
PAGE_MESSAGES = 50


async def show_consumers(asked: Asked) -> Answer:
    """Show all consumers with how far behind they are."""
    found = await list_consumers(asked.call)
    return Shown("consumers.html", "Consumers", {"consumers": found.data})


async def show_one_consumer(asked: Asked) -> Answer:
    """Show one consumer: definition, health, backfills and parked messages."""
    name = asked.path("name")
    consumer = await show_consumer(asked.call, name)
    backfills = await list_backfills(asked.call, Which(all=True))
    wanted = ParkedFilter(consumer=name, limit=PAGE_MESSAGES, cursor=asked.query.get("cursor"))
    parked = await list_messages(asked.call, wanted)
    values = {
        "consumer": consumer,
        "health": await show_health(asked.call, name),
        "definition": {k: v for k, v in consumer.definition.as_json().items() if v is not None},
        "declared_at": declared_at(asked.call.tasks, consumer.managed_by, "consumers", name),
        "backfills": [one for one in reversed(backfills.data) if one.consumer == name],
        "parked": parked.data,
        "next": asked.link("consumers", name, cursor=parked.next) if parked.next else None,
    }
    return Shown("consumer.html", f"Consumer {name}", values)


ROUTES = (
    Route("/consumers", show_consumers),
    Route("/consumers/{name}", show_one_consumer),
)

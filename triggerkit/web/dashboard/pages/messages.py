"""The pages of parked messages: what could not be delivered, why, and what becomes of it."""

from __future__ import annotations

from pydantic import ValidationError

from triggerkit.consumers.parked.manage import Parked
from triggerkit.consumers.parked.states import PARKED_STATES
from triggerkit.errors import UnknownConsumer
from triggerkit.web.api.captured.messages import ParkedFilter, list_messages, show_message
from triggerkit.web.api.problems import NotFound
from triggerkit.web.bulk.verbs import verbs_of_messages
from triggerkit.web.dashboard.page import Answer, Asked, Route, Shown
from triggerkit.web.dashboard.search import Qualifier, Search

QUALIFIERS = (
    Qualifier("consumer", "posts_push_consumer"),
    Qualifier("state", "blocked", PARKED_STATES),
)

#: Messages on a page.
PAGE_MESSAGES = 50

_NAMES = "SELECT name FROM triggerkit.consumers ORDER BY name LIMIT 20"


async def show_messages(asked: Asked) -> Answer:
    """Show the parked messages that fit, by consumer and position, without their bodies."""
    async with asked.call.state() as state:
        names = [name for (name,) in await (await state.execute(_NAMES)).fetchall()]
    search = Search.of(asked, QUALIFIERS, {"consumer": names})
    problem, messages, following = search.problem, list[Parked](), None
    if problem is None:
        try:
            wanted = ParkedFilter(
                **search.given, limit=PAGE_MESSAGES, cursor=asked.query.get("cursor")
            )
            found = await list_messages(asked.call, wanted)
            messages, following = found.data, found.next
        except ValidationError as error:
            wrong = sorted({str(one["loc"][0]) for one in error.errors()})
            problem = f"{', '.join(wrong)}: there is no such value"
        except UnknownConsumer as error:
            problem = str(error)
    values = {
        "messages": messages,
        "search": search,
        "verbs": verbs_of_messages(),
        "problem": problem,
        "first": asked.link("messages", **search.query) if "cursor" in asked.query else None,
        "next": asked.link("messages", **search.query, cursor=following) if following else None,
    }
    return Shown("messages.html", "Messages", values, 200 if problem is None else 422)


async def show_one_message(asked: Asked) -> Answer:
    """Show one parked message with its body and every attempt to deliver it."""
    position = position_of(asked)
    found = await show_message(asked.call, asked.path("consumer"), position)
    values = {"message": found.message, "body": found.body, "deliveries": found.deliveries}
    return Shown("message.html", f"Message {position}", values)


def position_of(asked: Asked) -> int:
    """Return the position in the path.

    Raises:
        NotFound: it is none.
    """
    position = asked.path("position")
    if not (position.isascii() and position.isdecimal() and len(position) < 19):
        raise NotFound("a message is found by its position, which is a number")
    return int(position)


ROUTES = (
    Route("/messages", show_messages),
    Route("/messages/{consumer}/{position}", show_one_message),
)

"""Add and remove users of the events, and remove instances of groups."""

from __future__ import annotations

from triggerkit.errors import ConfigurationError, NameTaken
from triggerkit.events.accounts import add_account, remove_account
from triggerkit.events.groups.service import UnknownInstance, leave
from triggerkit.events.groups.store import GroupName
from triggerkit.events.kafka.users import StillInKafka
from triggerkit.events.users import new_password
from triggerkit.state.audit import note
from triggerkit.web.api.problems import NotFound, status_of
from triggerkit.web.dashboard.page import ACTOR, Answer, Asked, Moved, Route, Shown
from triggerkit.web.dashboard.pages.events import events_page


async def add(asked: Asked) -> Answer:
    """Make a user, and show its password this once."""
    name, password = asked.form.get("name", "").strip(), new_password()
    try:
        kafka = asked.call.settings.kafka
        user, problem = await add_account(asked.call.state, kafka, name, password, ACTOR)
    except (ConfigurationError, NameTaken) as error:
        return await events_page(asked, str(error), name, status_of(error))
    values = {"name": user.name, "password": password, "problem": problem}
    return Shown("event_user.html", f"User {user.name}", values, is_live=False)


async def remove(asked: Asked) -> Answer:
    """Remove a user: its requests are refused from now on."""
    name = asked.form.get("name", "")
    problem = await remove_account(asked.call.state, asked.call.settings.kafka, name, ACTOR)
    if problem is not None:
        raise StillInKafka(problem)
    return Moved(asked.link("events"))


async def remove_instance(asked: Asked) -> Answer:
    """Remove an instance of a group; the others get its partitions."""
    group, instance = asked.form.get("group", ""), asked.form.get("instance", "")
    name = GroupName(group, asked.form.get("source", ""))
    try:
        async with asked.call.state() as state, state.transaction():
            await leave(state, name, instance)
            await note(state, ACTOR, "remove instance of group", group, {"instance": instance})
    except UnknownInstance:
        raise NotFound("there is no such instance any more: it left, or was silent") from None
    return Moved(asked.link("events", "groups", group))


# Names of groups and instances are others': they are in the form, not in the path.
ROUTES = (
    Route("/events/users/add", post=add),
    Route("/events/users/remove", post=remove),
    Route("/events/instances/remove", post=remove_instance),
)

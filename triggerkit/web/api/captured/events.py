"""The users of the events through the API; no answer but the first has a password."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr

from triggerkit.events.accounts import add_account, remove_account
from triggerkit.events.kafka.users import StillInKafka
from triggerkit.events.users import EventUser, list_users, new_password
from triggerkit.web.api.operation import ACTOR, Call, Given, Page


class NewUser(Given):
    """A user to be made; without a password one is made for it."""

    name: str
    password: SecretStr | None = None


@dataclass(frozen=True, slots=True)
class MadeUser:
    """A user that was made. `password` is the one that was made for it, shown this once; `problem`
    says why Kafka does not know the user, where there is one."""

    name: str
    created_at: datetime
    password: str | None
    problem: str | None = None


async def list_event_users(call: Call) -> Page[EventUser]:
    """Return the users who may read the events, by name."""
    async with call.state() as state:
        return Page(data=await list_users(state))


async def add_event_user(call: Call, body: NewUser) -> MadeUser:
    """Make a user, who reads the events by HTTP Basic with its name and password."""
    made = new_password() if body.password is None else None
    password = made or (body.password.get_secret_value() if body.password else "")
    user, problem = await add_account(call.state, call.settings.kafka, body.name, password, ACTOR)
    return MadeUser(user.name, user.created_at, made, problem)


async def remove_event_user(call: Call, name: str) -> None:
    """Remove a user: its requests are refused from now on. With 409 it is removed here, and Kafka
    still knows it."""
    problem = await remove_account(call.state, call.settings.kafka, name, ACTOR)
    if problem is not None:
        raise StillInKafka(problem)

"""Add and remove users of the events, here and in Kafka, where one name is one person's.

A user that Kafka has already is another's: its password stays, and it is not removed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

import psycopg
from pydantic import SecretStr

from triggerkit.events.kafka.users import added_in_kafka, known_to_kafka, removed_from_kafka
from triggerkit.events.users import EventUser, add_user, note_in_kafka, remove_user

#: Opens a connection to the state; none is held while Kafka is asked.
OpenState = Callable[[], AbstractAsyncContextManager[psycopg.AsyncConnection]]


async def add_account(
    state: OpenState, kafka: Mapping[str, SecretStr], name: str, password: str, actor: str
) -> tuple[EventUser, str | None]:
    """Make a user, and return it with what keeps Kafka from knowing it, where there is one.

    Raises:
        ConfigurationError, NameTaken: see `add_user`.
    """
    async with state() as connection:
        user = await add_user(connection, name, password, actor)
    problem = await known_to_kafka(kafka, name)
    if problem is not None or not kafka:
        return user, problem
    # Before it is made: one that is there and not noted would be left there.
    async with state() as connection:
        if not await note_in_kafka(connection, name):
            return user, f"{name} was removed meanwhile"
    return user, await added_in_kafka(kafka, name, password)


async def remove_account(
    state: OpenState, kafka: Mapping[str, SecretStr], name: str, actor: str
) -> str | None:
    """Remove a user; return why Kafka still knows it, where it does.

    Raises:
        UnknownEventUser: there is none.
    """
    async with state() as connection:
        is_in_kafka = await remove_user(connection, name, actor)
    return await removed_from_kafka(kafka, name) if is_in_kafka else None

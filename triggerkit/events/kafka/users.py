"""The users of the events in Kafka too: one name and password for both, by SCRAM."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, Final

from pydantic import SecretStr

from triggerkit.errors import TriggerkitError
from triggerkit.events.kafka.broker import ASK_S
from triggerkit.events.kafka.client import admin_properties, confluent
from triggerkit.events.kafka.faults import KafkaFault, more_telling
from triggerkit.events.kafka.tls import connection_fault

#: How a client may log in, and the iterations of each: Kafka asks for 4096 at least.
MECHANISMS: Final = ("SCRAM_SHA_256", "SCRAM_SHA_512")
ITERATIONS: Final = 8192

#: A user without credentials is as good as none.
_IS_GONE: Final = "RESOURCE_NOT_FOUND"


class StillInKafka(TriggerkitError):
    """The user is removed, and Kafka still knows it."""


async def added_in_kafka(settings: Mapping[str, SecretStr], name: str, password: str) -> str | None:
    """Let Kafka know the user, where there is one; return why it does not, None when it does."""

    def made(admin: Any, mechanism: str) -> Any:
        info = admin.ScramCredentialInfo(getattr(admin.ScramMechanism, mechanism), ITERATIONS)
        return admin.UserScramCredentialUpsertion(name, info, password.encode())

    problem = await _altered(settings, name, made)
    return None if problem is None else f"{name} reads by REST alone, not from Kafka: {problem}"


async def removed_from_kafka(settings: Mapping[str, SecretStr], name: str) -> str | None:
    """Have Kafka forget the user's passwords, where there is one; return why it does not. Its
    connections that are open stay so."""

    def made(admin: Any, mechanism: str) -> Any:
        return admin.UserScramCredentialDeletion(name, getattr(admin.ScramMechanism, mechanism))

    problem = await _altered(settings, name, made)
    return None if problem is None else f"{name} is removed, but Kafka still knows it: {problem}"


async def _altered(
    settings: Mapping[str, SecretStr], name: str, made: Callable[[Any, str], Any]
) -> str | None:
    if not settings:
        return None
    try:
        await asyncio.to_thread(_alter, settings, name, made)
    except TriggerkitError as error:
        return str(error)
    return None


def _alter(settings: Mapping[str, SecretStr], name: str, made: Callable[[Any, str], Any]) -> None:
    module = confluent("confluent_kafka.admin")
    errors: list[Any] = []
    properties = admin_properties(settings)
    client = module.AdminClient({**properties, "error_cb": errors.append})
    for mechanism in MECHANISMS:
        asked = client.alter_user_scram_credentials(
            [made(module, mechanism)], request_timeout=ASK_S
        )
        try:
            asked[name].result(timeout=2 * ASK_S)
        except confluent().KafkaException as error:
            if error.args[0].name() != _IS_GONE:
                told = reduce(more_telling, errors, None) or error.args[0]
                raise connection_fault(told, properties) from None
        except TimeoutError:
            raise KafkaFault("Kafka: the broker does not answer") from None

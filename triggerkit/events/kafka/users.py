"""The users of the events in Kafka too: one name and password for both, by SCRAM."""

from __future__ import annotations

import asyncio
import secrets
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

#: What is said of a user that was there before.
KNOWN: Final = (
    "Kafka has a user of this name already, which stays as it is. Take another name, or remove "
    "both: kafka-configs.sh --alter --entity-type users --entity-name {name} --delete-config "
    "'SCRAM-SHA-256,SCRAM-SHA-512'"
)


class StillInKafka(TriggerkitError):
    """The user is removed, and Kafka still knows it."""


async def known_to_kafka(settings: Mapping[str, SecretStr], name: str) -> str | None:
    """Return why Kafka is not to get a user of this name, where there is one: it has another's
    already, or is not reached."""
    if not settings:
        return None
    own = settings.get("KAFKA_SASL_USERNAME")
    try:
        is_known = (own is not None and own.get_secret_value() == name) or await asyncio.to_thread(
            _is_known, settings, name
        )
    except TriggerkitError as error:
        return _by_rest_alone(name, str(error))
    return _by_rest_alone(name, KNOWN.format(name=name)) if is_known else None


async def added_in_kafka(settings: Mapping[str, SecretStr], name: str, password: str) -> str | None:
    """Let Kafka know the user, where there is one; return why it does not, None when it does."""

    def made(admin: Any, mechanism: str) -> Any:
        info = admin.ScramCredentialInfo(getattr(admin.ScramMechanism, mechanism), ITERATIONS)
        return admin.UserScramCredentialUpsertion(name, info, password.encode())

    problem = await _altered(settings, name, made)
    return None if problem is None else _by_rest_alone(name, problem)


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


def _by_rest_alone(name: str, problem: str) -> str:
    return f"{name} reads by REST alone, not from Kafka: {problem}"


def _alter(settings: Mapping[str, SecretStr], name: str, made: Callable[[Any, str], Any]) -> None:
    asking = _Asking(settings)
    for mechanism in MECHANISMS:
        some = [made(asking.module, mechanism)]
        asking.answer_of(name, asking.client.alter_user_scram_credentials, some)


def _is_known(settings: Mapping[str, SecretStr], name: str) -> bool:
    asking = _Asking(settings)
    # Kafka's client ends the process if it may not be told of users. So it is seen first whether
    # they may be altered, and thus be told of: by one that there is not, which is to be removed.
    nobody = f"triggerkit-{secrets.token_hex(16)}"
    mechanism = asking.module.ScramMechanism.SCRAM_SHA_256
    removal = asking.module.UserScramCredentialDeletion(nobody, mechanism)
    asking.answer_of(nobody, asking.client.alter_user_scram_credentials, [removal])
    found = asking.answer_of(name, asking.client.describe_user_scram_credentials, [name])
    return found is not None and bool(found.scram_credential_infos)


class _Asking:
    """A client that asks of users, and what it said meanwhile."""

    def __init__(self, settings: Mapping[str, SecretStr]) -> None:
        self.module = confluent("confluent_kafka.admin")
        self._errors: list[Any] = []
        self._properties = admin_properties(settings)
        properties = {**self._properties, "error_cb": self._errors.append}
        self.client = self.module.AdminClient(properties)

    def answer_of(self, name: str, ask: Callable[..., Any], some: list[Any]) -> Any:
        """Return what Kafka answers of a user; None where it has none such."""
        try:
            return ask(some, request_timeout=ASK_S)[name].result(timeout=2 * ASK_S)
        except confluent().KafkaException as error:
            if error.args[0].name() == _IS_GONE:
                return None
            told = reduce(more_telling, self._errors, None) or error.args[0]
            raise connection_fault(told, self._properties) from None
        except TimeoutError:
            raise KafkaFault("Kafka: the broker does not answer") from None

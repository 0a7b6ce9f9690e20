"""Choose where events are read from: Kafka where it is set, else the embedded log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext

import psycopg
from pydantic import SecretStr

from triggerkit.errors import CannotConnect
from triggerkit.events.kafka.faults import KafkaFault, remedy_of
from triggerkit.events.kafka.source import KafkaSource
from triggerkit.events.source import Connections, Source
from triggerkit.events.topic_log import LogSource, WokenBy


def open_source(
    kafka: Mapping[str, SecretStr], connections: Connections, woken_by: WokenBy
) -> Source:
    """Return the source by the settings `kafka`, which are empty without it.

    Raises:
        ConfigurationError: Kafka's client is not installed, or refuses a setting.
    """
    if kafka:
        return KafkaSource(kafka, connections)
    return LogSource(connections, woken_by)


@asynccontextmanager
async def opened_source(
    kafka: Mapping[str, SecretStr], connection: psycopg.AsyncConnection
) -> AsyncIterator[Source]:
    """Yield the source for one who has one connection, and looks from time to time.

    Raises:
        ConfigurationError: see `open_source`.
        CannotConnect: Kafka does not answer.
    """
    source = open_source(kafka, lambda: nullcontext(connection), _unwoken)
    try:
        await source.ready()
        yield source
    except KafkaFault as fault:
        raise CannotConnect(f"{fault}; {remedy_of(str(fault))}") from fault
    finally:
        await source.close()


@asynccontextmanager
async def _unwoken(names: Sequence[str]) -> AsyncIterator[asyncio.Event]:  # noqa: ARG001
    yield asyncio.Event()

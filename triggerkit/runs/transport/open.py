"""Open the transport of runs: Redis, or RabbitMQ where `TRIGGERKIT_BROKER_URL` is set."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from triggerkit.errors import ConfigurationError
from triggerkit.runs.transport.base import AsyncTransport, Transport
from triggerkit.runs.transport.redis import AsyncRedisTransport, RedisTransport
from triggerkit.runs.transport.redis_url import read_redis_url
from triggerkit.settings import Settings


def open_transport(settings: Settings, namespace: str) -> Transport:
    """Open the transport that carries ready runs to workers; `namespace` keeps installations apart.

    Raises:
        ConfigurationError: a setting is missing or wrong, or the client of RabbitMQ is missing.
    """
    url = settings.rabbitmq_dsn
    if url is None:
        return RedisTransport(read_redis_url(settings.broker_dsn), namespace)
    transport: Transport = rabbitmq("transport").RabbitmqTransport(url, namespace)
    return transport


def open_async_transport(settings: Settings, namespace: str) -> AsyncTransport:
    """Open the transport's pushing side, for an event loop; see `open_transport`."""
    url = settings.rabbitmq_dsn
    if url is None:
        return AsyncRedisTransport(read_redis_url(settings.broker_dsn), namespace)
    transport: AsyncTransport = rabbitmq("transport").AsyncRabbitmqTransport(url, namespace)
    return transport


def rabbitmq(part: str) -> Any:
    """Return the module `rabbitmq.<part>`, imported when it is used: its client is an extra.

    Raises:
        ConfigurationError: the extra is missing.
    """
    if find_spec("pika") is None:
        raise ConfigurationError(
            "TRIGGERKIT_BROKER_URL names RabbitMQ, whose client is not installed; "
            "install it with: pip install 'triggerkit[rabbitmq]'"
        )
    return import_module(f"triggerkit.runs.transport.rabbitmq.{part}")

"""The `deliver` process: deliveries from a log on Kafka, shared by as many as there are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import psycopg
from psycopg.errors import InsufficientPrivilege
from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.source.database import Database
from triggerkit.consumers.source.log_place import require_log
from triggerkit.delivery.consumer_delivery import pushes
from triggerkit.delivery.credentials import Credentials, credentials_of
from triggerkit.delivery.direct.way import DirectWay
from triggerkit.delivery.group.partitions import Partitions, loops
from triggerkit.delivery.http.network import reachable
from triggerkit.delivery.push import Pusher
from triggerkit.delivery.tunnel.way import TunnelWay
from triggerkit.encryption import Keyring
from triggerkit.errors import CannotConnect, ConfigurationError
from triggerkit.events.kafka.faults import KafkaFault
from triggerkit.kafkalog.member import Member
from triggerkit.kafkalog.stored import StoredLog
from triggerkit.kafkalog.topic import ensure_topic, require_kafka, topic_name
from triggerkit.project import Project
from triggerkit.settings import Settings
from triggerkit.state.channels import CONSUMERS
from triggerkit.state.connect import connect, pool
from triggerkit.state.recovery import Recovery
from triggerkit.supervisor.logs import is_child
from triggerkit.supervisor.probes.process_health import ProcessHealth
from triggerkit.supervisor.stream import applied_database

logger = logging.getLogger(__name__)

#: What the deliveries outlast: they are started again.
_LOST = (psycopg.OperationalError, InsufficientPrivilege, CannotConnect, KafkaFault)

#: Connections to the state database.
POOL_SIZE = 6

#: Seconds that pushes under way have when the partitions are given to others or the process is
#: asked to end, unless it is set.
GRACE_S = 5.0


class Delivering:
    """One process of the group that delivers from one database's log."""

    def __init__(
        self,
        settings: Settings,
        project: Project,
        database: Database,
        states: AsyncConnectionPool,
    ) -> None:
        self._settings = settings
        self._project = project
        self._database = database
        self._states = states
        self._keyring = Keyring(settings.encryption_keys)

    async def run(self, changed: Callable[[bool], None]) -> None:
        """Deliver until canceled what this process is given; `changed` is told whether that is
        anything."""
        settings, states, database = self._settings, self._states, self._database
        kafka = require_kafka(settings)
        async with states.connection() as state:
            name = await topic_name(state, database.id)
        await ensure_topic(name, settings)
        stored = StoredLog(kafka, name)
        direct = DirectWay(settings, self._project, states)
        tunnels = TunnelWay(settings.state_dsn, states)
        reach = reachable(settings.triggerkit_allow_networks, settings.public_url)
        try:
            async with Pusher(reach) as pusher, asyncio.TaskGroup() as group:
                make = loops(pusher, self._credentials, direct, tunnels)
                grace_s = settings.grace_s or GRACE_S
                partitions = Partitions(states, database.id, stored, make, group, grace_s, changed)
                following = group.create_task(self._follow(partitions), name="follow state")
                try:
                    await Member(kafka, name, partitions).run()
                finally:
                    following.cancel()
        finally:
            await direct.close()
            await tunnels.close()
            await stored.close()

    async def _follow(self, partitions: Partitions) -> None:
        async with await connect(self._settings.state_dsn, "triggerkit deliver") as connection:
            await connection.execute(f"LISTEN {CONSUMERS}")
            while True:
                await partitions.refresh()
                async for _ in connection.notifies(stop_after=1):
                    pass

    def _credentials(self, consumer: Consumer) -> Credentials:
        if consumer.target is None:
            return Credentials()
        return credentials_of(consumer.target, self._keyring, self._settings)


def require_log_on_kafka(settings: Settings) -> None:
    """Let only pass who has something to deliver.

    Raises:
        ConfigurationError: the log is in Postgres, and the stream delivers from it.
    """
    if settings.triggerkit_log != "kafka":
        raise ConfigurationError(
            "the log is in Postgres, and the stream delivers from it; run: triggerkit stream"
        )
    require_kafka(settings)


async def run_deliver(
    settings: Settings,
    ready: Callable[[], None],
    project: Project | None = None,
    health: ProcessHealth | None = None,
) -> None:
    """Deliver from the log of the source database until canceled; see `run_stream`."""
    health = health or ProcessHealth()
    turning = asyncio.create_task(health.turn("event loop"), name="turns of the event loop")
    try:
        await _deliver(settings, ready, project or Project.load(), health)
    finally:
        turning.cancel()


async def _deliver(
    settings: Settings, ready: Callable[[], None], project: Project, health: ProcessHealth
) -> None:
    database = await applied_database(settings, health)
    if is_child():
        # `dev` shows each; elsewhere a line for each would be too many.
        pushes.setLevel(logging.DEBUG)
    recovery = Recovery("the deliveries' connection", _LOST, logger)

    has_told = False

    def changed(has_partitions: bool) -> None:
        nonlocal has_told
        recovery.succeeded()
        health.works("active" if has_partitions else "standby")
        if not has_told:
            has_told = True
            ready()

    async with pool(settings.state_dsn, "triggerkit deliver", size=POOL_SIZE) as states:
        async with states.connection() as state:
            await require_log(state, database.id, settings.triggerkit_log)
        while True:
            async with recovery.attempt(), health.unless_lost("log"):
                await states.check()
                await Delivering(settings, project, database, states).run(changed)

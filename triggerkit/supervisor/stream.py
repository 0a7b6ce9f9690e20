"""The `stream` process: capture into the log, backfills, and delivery from the log."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable

import psycopg
from psycopg.errors import InsufficientPrivilege
from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.appender import Appender
from triggerkit.consumers.backfill.fault import fault_of
from triggerkit.consumers.backfill.scheduler import Backfills
from triggerkit.consumers.backfill.table import TableBackfill
from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.cursors.store import CursorStore
from triggerkit.consumers.gap import close_gaps
from triggerkit.consumers.ingest import ingest
from triggerkit.consumers.source.database import Database, find_database
from triggerkit.consumers.source.log_place import require_log
from triggerkit.consumers.source.relations import StoredVersions
from triggerkit.delivery.consumer_delivery import pushes
from triggerkit.delivery.credentials import Credentials, credentials_of
from triggerkit.delivery.direct.way import DirectWay
from triggerkit.delivery.http.network import reachable
from triggerkit.delivery.kafka.way import KafkaWay
from triggerkit.delivery.push import Pusher
from triggerkit.delivery.thread import DeliveryThread
from triggerkit.delivery.tunnel.way import TunnelWay
from triggerkit.encryption import Keyring
from triggerkit.errors import CannotConnect, Fenced, SlotError, TriggerkitError
from triggerkit.events.kafka.faults import KafkaFault
from triggerkit.kafkalog.writer import KafkaLogWriter
from triggerkit.log.writer import LogWriter
from triggerkit.log.writing import Writing
from triggerkit.project import Project
from triggerkit.replication.capture import Capture
from triggerkit.settings import Settings
from triggerkit.state.channels import CONSUMERS
from triggerkit.state.connect import connect, pool
from triggerkit.state.migrate import applied_version, require_schema
from triggerkit.state.pooler import require_own_session
from triggerkit.state.recovery import Recovery
from triggerkit.supervisor.alerts.sender import keep_alerting
from triggerkit.supervisor.logs import is_child
from triggerkit.supervisor.probes.process_health import TURN_S, ProcessHealth
from triggerkit.supervisor.streaming.confirmed import Confirmed
from triggerkit.supervisor.streaming.kafka_keeping import keep_noting
from triggerkit.supervisor.streaming.leadership import leadership
from triggerkit.supervisor.streaming.retaining import keep_retaining, table_bytes_of
from triggerkit.supervisor.streaming.source_server import (
    follow_server,
    known_server,
    require_slot_epoch,
)
from triggerkit.supervisor.streaming.to_kafka import Deliveries, Elsewhere, MarkingAppender
from triggerkit.supervisor.streaming.watching import Watch

logger = logging.getLogger(__name__)

#: What the stream outlasts: it is started again.
_LOST = (
    psycopg.OperationalError,
    InsufficientPrivilege,
    CannotConnect,
    SlotError,
    Fenced,
    KafkaFault,
)

#: Connections to the state database: for cursors and reads of the log, and for what capture needs,
#: which waits for none of them.
DELIVERY_POOL_SIZE = 6
CAPTURE_POOL_SIZE = 4

#: Seconds that pushes under way have when the process is asked to end, unless it is set.
GRACE_S = 5.0

#: Seconds after which a thread that computes lets the others go on: deliveries hold up capture by
#: no more than that.
SWITCH_S = 0.0005


class Stream:
    """One database's stream: everything between its WAL and the pushes."""

    def __init__(
        self,
        settings: Settings,
        project: Project,
        database: Database,
        states: AsyncConnectionPool,
        health: ProcessHealth,
    ) -> None:
        self._health = health
        self._settings = settings
        self._project = project
        self._database = database
        self._states = states
        self._backfills = Backfills(
            settings.source_dsn, states, database.id, database.publication_name
        )
        self._store = CursorStore(states, database.id)
        self._keyring = Keyring(settings.encryption_keys)

    async def run(self, ready: Callable[[], None]) -> None:
        """Stream until canceled; a lost connection is made again."""
        async with LogWriter.open(
            self._settings.state_dsn, self._database.id, table_bytes_of(self._settings)
        ) as writer:
            deliveries = DeliveryThread(
                self._delivery_pool,
                self._database.id,
                self._pusher,
                self._credentials,
                self._direct,
                writer.next_position - 1,
                self._kafka,
                self._grace_s,
                self._tunnels,
            )
            async with asyncio.TaskGroup() as group, deliveries.running(group):
                group.create_task(self._follow_state(deliveries, group), name="follow state")
                retaining = keep_retaining(
                    self._settings, self._database.id, deliveries.progress, writer.filled
                )
                group.create_task(retaining, name="retention")
                watch = Watch(self._settings, self._database, self._states)
                group.create_task(watch.run(), name="watch the source's tables")
                group.create_task(self._turn(deliveries), name="turns of the deliveries")
                await self._capture(writer, deliveries, ready)

    async def _capture(
        self, writer: Writing, deliveries: Deliveries, ready: Callable[[], None]
    ) -> None:
        database = self._database
        known = await known_server(self._states, database.id)
        confirmed = Confirmed(self._states, writer)
        await confirmed.recall()
        async with Capture.open(
            self._settings.slot_dsn,
            database.slot_name,
            database.publication_name,
            writer.last_commit_lsn,
            known,
            StoredVersions(self._states, database.id),
            confirmed.remember,
            self._settings.source_dsn,
        ) as capture:
            await follow_server(self._states, database.id, known, capture.server)
            await require_slot_epoch(self._states, database.id, writer.slot_epoch)
            await confirmed.compare(capture.confirmed_before)
            ready()
            await ingest(capture, self._appender(writer), deliveries.appended)

    def _appender(self, writer: Writing) -> Appender:
        return Appender(writer, self._backfills)

    async def _follow_state(self, deliveries: Deliveries, group: asyncio.TaskGroup) -> None:
        """Run backfills, and take in what was changed in the state while the stream runs."""
        async with await connect(self._settings.state_dsn, "triggerkit stream") as connection:
            await connection.execute(f"LISTEN {CONSUMERS}")
            while True:
                for backfill in await self._backfills.look():
                    group.create_task(
                        self._backfill(backfill, deliveries),
                        name=f"backfill {backfill.backfill.id}",
                    )
                await self._close_gaps()
                await deliveries.refresh()
                look_again_s = self._backfills.look_again_s
                async for _ in connection.notifies(timeout=look_again_s, stop_after=1):
                    pass

    async def _backfill(self, backfill: TableBackfill, deliveries: Deliveries) -> None:
        table, consumer_id = backfill.backfill.table, backfill.backfill.consumer_id
        try:
            await backfill.run(deliveries.head, deliveries.refresh)
            if backfill.is_complete:
                logger.info("backfill of %s is complete", table)
        except (TriggerkitError, psycopg.Error) as error:
            fault = fault_of(error)
            if fault is None:
                raise
            # The table's fault, not the connection's: the stream goes on without this backfill.
            logger.error("backfill of %s stopped: %s", table, fault)
            await self._backfills.fail(backfill, fault)
            await self._store.save_error(consumer_id, f"backfill of {table}: {fault}")
        finally:
            self._backfills.close(backfill)
        await self._backfills.wake()

    async def _close_gaps(self) -> None:
        async with self._states.connection() as connection:
            for name in await close_gaps(connection, self._database.id):
                logger.info("the gap of %s is closed: its tables have been read again", name)

    async def _turn(self, deliveries: DeliveryThread) -> None:
        """Note that the deliveries' event loop turns, too."""
        try:
            while True:
                await deliveries.progress()
                self._health.turned("deliveries")
                await asyncio.sleep(TURN_S)
        finally:
            self._health.ended("deliveries")

    def _grace_s(self) -> float:
        """Return the seconds that pushes under way have to end; none where the lead was lost."""
        return (self._settings.grace_s or GRACE_S) if self._health.is_stopping else 0.0

    def _delivery_pool(self) -> AsyncConnectionPool:
        return pool(self._settings.state_dsn, "triggerkit stream", size=DELIVERY_POOL_SIZE)

    def _pusher(self) -> Pusher:
        settings = self._settings
        return Pusher(reachable(settings.triggerkit_allow_networks, settings.public_url))

    def _direct(self, states: AsyncConnectionPool) -> DirectWay:
        return DirectWay(self._settings, self._project, states)

    def _kafka(self, states: AsyncConnectionPool) -> KafkaWay:
        return KafkaWay(self._settings, states, self._database.id)

    def _tunnels(self, states: AsyncConnectionPool) -> TunnelWay:
        return TunnelWay(self._settings.state_dsn, states)

    def _credentials(self, consumer: Consumer) -> Credentials:
        if consumer.target is None:
            return Credentials()
        return credentials_of(consumer.target, self._keyring, self._settings)


class KafkaStream(Stream):
    """One database's stream into a log on Kafka: it captures, and `triggerkit deliver` delivers."""

    async def run(self, ready: Callable[[], None]) -> None:
        """Stream until canceled; a lost connection is made again."""
        async with (
            KafkaLogWriter.open(self._settings, self._database.id) as writer,
            asyncio.TaskGroup() as group,
        ):
            elsewhere = Elsewhere(writer)
            group.create_task(self._follow_state(elsewhere, group), name="follow state")
            watch = Watch(self._settings, self._database, self._states)
            group.create_task(watch.run(), name="watch the source's tables")
            noting = keep_noting(self._settings, self._database.id)
            group.create_task(noting, name="look at the log")
            await self._capture(writer, elsewhere, ready)

    def _appender(self, writer: Writing) -> Appender:
        assert isinstance(writer, KafkaLogWriter)
        return MarkingAppender(writer, self._backfills)


async def run_stream(
    settings: Settings,
    ready: Callable[[], None],
    project: Project | None = None,
    health: ProcessHealth | None = None,
) -> None:
    """Run the stream of the source database until canceled. `project` is where tasks are whose runs
    it makes: that of this folder, unless it is given. `health` is told what becomes of it."""
    health = health or ProcessHealth()
    beside = [
        asyncio.create_task(health.turn("event loop"), name="turns of the event loop"),
        asyncio.create_task(keep_alerting(settings), name="alerts"),
    ]
    try:
        await _stream(settings, ready, project or Project.load(), health)
    finally:
        for task in beside:
            task.cancel()


async def _stream(
    settings: Settings, ready: Callable[[], None], project: Project, health: ProcessHealth
) -> None:
    database = await applied_database(settings, health)
    states = pool(settings.state_dsn, "triggerkit stream", size=CAPTURE_POOL_SIZE)
    recovery = Recovery("the stream's connection", _LOST, logger)
    kind = KafkaStream if settings.triggerkit_log == "kafka" else Stream
    sys.setswitchinterval(SWITCH_S)
    if is_child():
        # `dev` shows each; elsewhere a line for each would be too many.
        pushes.setLevel(logging.DEBUG)

    def started() -> None:
        recovery.succeeded()
        health.works("active")
        ready()

    async with states:
        async with states.connection() as state:
            await require_log(state, database.id, settings.triggerkit_log)
        while True:
            async with (
                recovery.attempt(),
                health.unless_lost("postgres"),
                leadership(settings, database.id, lambda: health.works("standby")),
            ):
                # A server that went away took all of the pool's connections along.
                await states.check()
                await kind(settings, project, database, states, health).run(started)


async def applied_database(settings: Settings, health: ProcessHealth) -> Database:
    """Return the source database as the state knows it; waits until `apply` has made its slot."""
    async with (
        await connect(settings.source_dsn, "triggerkit stream") as source,
        await connect(settings.state_dsn, "triggerkit stream") as state,
    ):
        await require_own_session(state, settings.state_dsn)
        # One that is missing is waited for, as its consumers are.
        if await applied_version(state):
            await require_schema(state)
        await state.execute(f"LISTEN {CONSUMERS}")
        database = await find_database(source, state)
        if database is None:
            logger.info("this database has no consumers yet; waiting for: triggerkit apply")
            health.lacks("triggerkit apply")
        while database is None:
            async for _ in state.notifies(stop_after=1):
                pass
            database = await find_database(source, state)
        await require_schema(state)
        health.has("triggerkit apply")
        return database

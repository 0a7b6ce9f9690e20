"""Note in the state what the log on Kafka has, and how far consumers are, while the stream runs."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Final

import psycopg

from triggerkit.consumers.extents import forget_deliveries, note_extents
from triggerkit.consumers.lag_history import note_lag
from triggerkit.consumers.lags import count_lags
from triggerkit.errors import CannotConnect
from triggerkit.events.kafka.faults import KafkaFault
from triggerkit.kafkalog.message import Unreadable
from triggerkit.kafkalog.stored import StoredLog
from triggerkit.kafkalog.topic import require_kafka, topic_name
from triggerkit.settings import Settings
from triggerkit.state.connect import connect

logger = logging.getLogger(__name__)

#: Seconds between two looks, and between two times that old rows go and charts are drawn on.
LOOK_S: Final = 10.0
_KEEP_S: Final = 60.0


async def keep_noting(settings: Settings, database_id: int) -> None:
    """Look regularly, until canceled. What goes wrong is told and tried again: the stream goes
    on."""
    while True:
        try:
            await _keep_noting(settings, database_id)
        except (psycopg.Error, CannotConnect, KafkaFault, Unreadable) as error:
            told = str(error).strip().partition("\n")[0] or type(error).__name__
            logger.warning("the look at the log failed and will be retried: %s", told)
        await asyncio.sleep(LOOK_S)


async def _keep_noting(settings: Settings, database_id: int) -> None:
    async with await connect(settings.state_dsn, "triggerkit log look") as connection:
        name = await topic_name(connection, database_id)
        stored = StoredLog(require_kafka(settings), name)
        try:
            keep_at = monotonic()
            while True:
                extents = await note_extents(connection, stored, database_id)
                await count_lags(connection, stored, database_id, extents)
                if monotonic() >= keep_at:
                    keep_at = monotonic() + _KEEP_S
                    await forget_deliveries(connection, database_id)
                    await note_lag(connection)
                await asyncio.sleep(LOOK_S)
        finally:
            await stored.close()

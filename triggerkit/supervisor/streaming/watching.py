"""Looks, while the stream runs, whether the source's tables are still as they can be followed."""

from __future__ import annotations

import asyncio
import logging

import psycopg
from psycopg_pool import AsyncConnectionPool

from triggerkit.configuration.table_name import table_text
from triggerkit.consumers.source.database import Database
from triggerkit.consumers.source.published import followed_names, look
from triggerkit.errors import CannotConnect
from triggerkit.events.topics import note_old_rows
from triggerkit.replication.publication.tables import Fault, read_tables
from triggerkit.replication.slot.replication_slot import identify
from triggerkit.replication.slot.source_server import Server
from triggerkit.settings import Settings
from triggerkit.state.channels import notify_consumers
from triggerkit.state.connect import connect
from triggerkit.supervisor.streaming.source_server import follow_server, known_server

logger = logging.getLogger(__name__)

#: Seconds between two looks at the tables.
LOOK_S = 15.0


class Watch:
    """Tells of tables that are not published as they were, and of those that must not be."""

    def __init__(self, settings: Settings, database: Database, states: AsyncConnectionPool) -> None:
        self._settings = settings
        self._database = database
        self._states = states
        self._faults: dict[tuple[str, str], Fault | None] = {}

    async def run(self) -> None:
        """Look until canceled. What goes wrong is told and tried again: the stream goes on."""
        while True:
            try:
                async with await connect(self._settings.source_dsn, "triggerkit watch") as source:
                    while True:
                        await self._look(source)
                        await self._follow_promotion()
                        await asyncio.sleep(LOOK_S)
            except (psycopg.Error, CannotConnect) as error:
                first = str(error).strip().partition("\n")[0]
                logger.warning("the source's tables cannot be looked at: %s", first)
            await asyncio.sleep(LOOK_S)

    async def _follow_promotion(self) -> None:
        """Note that a standby whose slot is streamed took over: its stream does not end by that."""
        if self._settings.triggerkit_standby_url is None:
            return
        async with await connect(self._settings.slot_dsn, "triggerkit watch") as standby:
            found = await identify(standby)
        known = await known_server(self._states, self._database.id)
        server = Server(found.system_identifier, found.timeline)
        await follow_server(self._states, self._database.id, known, server)

    async def _look(self, source: psycopg.AsyncConnection) -> None:
        database = self._database
        async with self._states.connection() as state:
            found = await look(source, state, database.id, database.publication_name)
            names = await followed_names(state, database.id)
            if found:
                await notify_consumers(state)
        for gap in found:
            logger.error("%s", gap)
        tables = await read_tables(source, names, database.publication_name)
        async with self._states.connection() as state:
            carries = {name: not table.partial for name, table in tables.items()}
            await note_old_rows(state, database.id, carries)
        faults = {name: table.fault for name, table in tables.items()}
        for name, fault in faults.items():
            if fault is not None and fault != self._faults.get(name):
                logger.error("table %s %s; run: %s", table_text(*name), *fault)
        self._faults = faults

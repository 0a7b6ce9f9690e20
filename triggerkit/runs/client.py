"""Open what triggering needs: the state database, the transport and the settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from psycopg_pool import AsyncConnectionPool

from triggerkit.errors import CannotConnect
from triggerkit.runs.accept.acceptor import Acceptor
from triggerkit.runs.results import Ends
from triggerkit.runs.rooms import Rooms
from triggerkit.runs.run import NewRun, RunRef
from triggerkit.runs.session import by_index
from triggerkit.runs.transport.base import AsyncTransport
from triggerkit.runs.transport.open import open_async_transport
from triggerkit.settings import Settings
from triggerkit.state.connect import connect, pool
from triggerkit.state.migrate import require_schema
from triggerkit.state.pooler import require_own_session


@dataclass(slots=True)
class Client:
    """An open client; use it on the event loop that opened it."""

    settings: Settings
    pool: AsyncConnectionPool
    transport: AsyncTransport
    acceptor: Acceptor
    ends: Ends
    rooms: Rooms

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Connect.

        Raises:
            CannotConnect: the state database does not answer.
            PreflightFailed: the schema `triggerkit` is not there.
        """
        namespace = await installation(settings)
        states = pool(
            by_index(settings.state_dsn), "triggerkit client", size=settings.triggerkit_pool_size
        )
        await states.open()
        transport = open_async_transport(settings, namespace)
        ends = Ends(settings.state_dsn, states)
        rooms = Rooms(states, transport)
        return cls(settings, states, transport, Acceptor(states, transport), ends, rooms)

    async def close(self) -> None:
        """Close the connections."""
        await self.acceptor.close()
        await self.ends.close()
        await self.transport.close()
        await self.pool.close()

    async def accept(self, runs: Sequence[NewRun]) -> list[RunRef]:
        """Make `runs` durable and push them; see `Acceptor.accept`."""
        return await self.acceptor.accept(runs)


async def installation(settings: Settings) -> str:
    """Return the id of this installation: its keys in Redis carry it.

    Raises:
        PreflightFailed: a pooler shares the sessions of the state, or the schema is missing, older,
            or too new.
    """
    async with await connect(settings.state_dsn, "triggerkit") as connection:
        await require_own_session(connection, settings.state_dsn)
        await require_schema(connection)
        cursor = await connection.execute("SELECT id::text FROM triggerkit.installation")
        row = await cursor.fetchone()
        if row is None:
            raise CannotConnect("triggerkit.installation is empty; run: triggerkit upgrade")
        return str(row[0])

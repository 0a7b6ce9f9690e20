"""The channels by which processes wake each other: `LISTEN` and `pg_notify` of the state database.

A notification only says that something is to be looked at: who missed one finds it at the next
look.
"""

from __future__ import annotations

import psycopg

#: Consumers, endpoints, backfills or parked messages were changed. Without a payload.
CONSUMERS = "triggerkit_consumers"

#: The log may have something for those who receive: "database 1" when the log of a database moved,
#: "consumer 1" when somebody let go of what others may have.
LOG = "triggerkit_log"

#: Every keeper is to look at once; ids of runs in the payload, joined by commas, are pushed.
KEEPER = "triggerkit_wake"

#: The run of this id ended, and somebody waits for it: a trigger of the schema notifies.
ENDED = "triggerkit_ended"


#: Tunnels were opened or ended (no payload), a push waits for the process that holds one ("push"
#: and that process), or was answered ("answer" and its id).
TUNNELS = "triggerkit_tunnels"


async def notify_consumers(connection: psycopg.AsyncConnection) -> None:
    """Have the stream, and callers that wait for messages, take in what was changed."""
    await connection.execute(f"SELECT pg_notify('{CONSUMERS}', '')")


async def notify_tunnels(connection: psycopg.AsyncConnection, payload: str = "") -> None:
    """Have those who send through tunnels, or hold them, look at what was changed."""
    await connection.execute(f"SELECT pg_notify('{TUNNELS}', %s)", [payload])

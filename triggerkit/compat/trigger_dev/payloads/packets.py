"""Payloads of 128 KB and more: the SDK asks where to put one, puts it there, and says its id.

Where to put it is an address of this process that needs no key, signed for an hour.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final, NamedTuple

import psycopg
from starlette.requests import Request

from triggerkit.compat.trigger_dev.call import PREFIX, SdkCall
from triggerkit.compat.trigger_dev.given import MAX_BODY_BYTES, MAX_ITEMS_BYTES
from triggerkit.errors import ConfigurationError
from triggerkit.runs.run import first_run_id_at, new_run_id
from triggerkit.settings import Settings
from triggerkit.tasks.receive.body import BodyRefused
from triggerkit.web.body import read_body

#: The type of a payload that is the id of a packet.
STORED: Final = "application/store"

#: Where packets are put, below the prefix.
PLACE: Final = "/packets/"

#: How long an address is good for, how long a packet is kept, and most that are forgotten when one
#: comes.
OPEN_S: Final = timedelta(hours=1).total_seconds()
KEEP_S: Final = timedelta(days=1).total_seconds()
MOST_FORGOTTEN: Final = 100

_PUT: Final = """
INSERT INTO triggerkit.trigger_dev_packets (id, kind, data) VALUES (%s, %s, %s)
ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, data = excluded.data
"""

_SIZE: Final = """
SELECT coalesce(sum(octet_length(data)), 0) FROM triggerkit.trigger_dev_packets
WHERE id = ANY (%s)
"""

_GET: Final = "SELECT id, kind, data FROM triggerkit.trigger_dev_packets WHERE id = ANY (%s)"

#: Ids sort by time, so the oldest are found at the beginning of the index.
_FORGET: Final = """
DELETE FROM triggerkit.trigger_dev_packets WHERE id = ANY (ARRAY(
    SELECT id FROM triggerkit.trigger_dev_packets WHERE id < %s ORDER BY id LIMIT %s))
"""


class Packet(NamedTuple):
    """A payload that was stored apart, packed as its `kind` says."""

    id: str
    kind: str
    data: str


#: Packets by their ids.
Packets = Mapping[str, Packet]


async def announce_packet(sdk: SdkCall) -> dict[str, str]:
    """Return where a packet is to be put, and its id."""
    settings = sdk.call.client.settings
    packet_id = _as_packet(new_run_id())
    until = int(time.time() + OPEN_S)
    signature = _signature(settings, packet_id, str(until))
    address = f"{_base(sdk.request, settings)}{PREFIX}{PLACE}{packet_id}"
    return {
        "presignedUrl": f"{address}?until={until}&signature={signature}",
        "storagePath": packet_id,
    }


def is_signed(request: Request, settings: Settings) -> bool:
    """Return whether a request puts a packet where it was told to."""
    _, _, packet_id = request.url.path.rpartition(f"{PREFIX}{PLACE}")
    until = request.query_params.get("until", "")
    given = request.query_params.get("signature", "")
    if not packet_id or request.method != "PUT" or settings.triggerkit_secret_key is None:
        return False
    expected = _signature(settings, packet_id, until)
    is_right = hmac.compare_digest(given.encode(), expected.encode())
    return is_right and time.time() < int(until)


async def put_packet(sdk: SdkCall) -> dict[str, str]:
    """Store a packet; one that comes again takes the first one's place."""
    packet_id = sdk.path["id"]
    data = await read_body(sdk.request, MAX_BODY_BYTES, of_any_type=True)
    kind = sdk.request.headers.get("content-type", "application/json").partition(";")[0].strip()
    oldest = _as_packet(first_run_id_at(time.time() - KEEP_S))
    async with sdk.call.state() as state:
        await state.execute(_FORGET, [oldest, MOST_FORGOTTEN])
        await state.execute(_PUT, [packet_id, kind, data])
    return {"id": packet_id}


async def find_packets(connection: psycopg.AsyncConnection, ids: Sequence[str]) -> Packets:
    """Return the packets by their ids.

    Raises:
        ConfigurationError: one is not there.
        BodyRefused: together they are larger than a request may be.
    """
    wanted = list(dict.fromkeys(ids))
    row = await (await connection.execute(_SIZE, [wanted])).fetchone()
    if row is not None and row[0] > MAX_ITEMS_BYTES:
        raise BodyRefused(413, f"the payloads have more than {MAX_ITEMS_BYTES} bytes together")
    rows = await (await connection.execute(_GET, [wanted])).fetchall()
    found = {packet_id: Packet(packet_id, kind, data.decode()) for packet_id, kind, data in rows}
    for packet_id in wanted:
        if packet_id not in found:
            raise ConfigurationError(
                f"no payload is stored as {packet_id[:80]!r}; one is kept for a day"
            )
    return found


def _signature(settings: Settings, packet_id: str, until: str) -> str:
    key = settings.triggerkit_secret_key
    secret = b"" if key is None else key.get_secret_value().encode()
    return hmac.new(secret, f"packet {packet_id} {until}".encode(), hashlib.sha256).hexdigest()


def _base(request: Request, settings: Settings) -> str:
    """Return the address at which the caller has reached this process."""
    if settings.triggerkit_public_url is not None:
        return settings.public_url
    return f"{request.url.scheme}://{request.url.netloc}"


def _as_packet(run_id: str) -> str:
    return run_id.replace("run_", "packet_")

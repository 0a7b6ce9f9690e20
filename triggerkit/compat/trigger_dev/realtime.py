"""Realtime, which is not offered, in a way that its client can tell.

The SDK's subscriptions end in silence after an error, and their loops wait for ever. So the first
request is answered by a run whose payload is said to be stored apart; what the client asks for next
is refused in words, and those its loop throws.
"""

from __future__ import annotations

from typing import Final

import orjson
from starlette.responses import Response

from triggerkit.compat.trigger_dev.answers import refused
from triggerkit.compat.trigger_dev.call import SdkCall
from triggerkit.compat.trigger_dev.not_offered import sentence_about

#: The payload's place; the paths under which the SDK's versions ask for it are not offered.
_PACKET: Final = "realtime"

_NOWHEN: Final = "1970-01-01T00:00:00"

_ROWS: Final = orjson.dumps(
    [
        {
            "key": _PACKET,
            "headers": {"operation": "insert"},
            "value": {
                "id": _PACKET,
                "friendlyId": _PACKET,
                "taskIdentifier": _PACKET,
                "status": "PENDING",
                "createdAt": _NOWHEN,
                "updatedAt": _NOWHEN,
                "payload": _PACKET,
                "payloadType": "application/store",
            },
        },
        {"headers": {"control": "up-to-date"}},
    ]
)

#: What its client wants to be told of the rows.
_HEADERS: Final = {
    "electric-handle": _PACKET,
    "electric-offset": "0_0",
    "electric-schema": "{}",
    "cache-control": "no-store",
}


async def refuse_subscription(sdk: SdkCall) -> Response:
    """Return what lets a subscription fail in words; and nothing more to one that goes on."""
    if "live" in sdk.request.query_params:
        return refused(404, sentence_about("GET", f"/{_PACKET}/"))
    return Response(_ROWS, media_type="application/json", headers=_HEADERS)

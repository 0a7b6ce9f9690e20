"""Try a local endpoint: whether a tunnel to it is open, and what comes back of a test message."""

from __future__ import annotations

from secrets import token_hex

import orjson
import psycopg

from triggerkit.consumers.endpoints.model import SealedEndpoint
from triggerkit.consumers.health import tunnel_to
from triggerkit.consumers.tunnels.members import open_tunnels
from triggerkit.consumers.tunnels.pushes import TunnelAnswer
from triggerkit.delivery.http.connection import HttpError, Response
from triggerkit.delivery.probe import TIMEOUT_S, Report, judge, sample_message
from triggerkit.delivery.tunnel.way import test_through


async def probe_local(state: psycopg.AsyncConnection, endpoint: SealedEndpoint) -> Report:
    """Send a test message through the tunnel to a local endpoint; every fault is in the report."""
    report = Report(endpoint.url)
    held = (await open_tunnels(state)).get(endpoint.id)
    if not held:
        report.meaning = f"no tunnel to it is open; open one: {tunnel_to(endpoint.name)}"
        return report
    tunnel = held[0]
    with report.step("tunnel") as found:
        found.append(f"of {tunnel.user}, to port {tunnel.port}")
    body = orjson.dumps(sample_message(endpoint.name))
    batch_id = f"msg_{token_hex(16)}"
    try:
        with report.step("answer") as found:
            response = _response(await test_through(state, tunnel, batch_id, body, TIMEOUT_S))
            found.append(str(response.status))
    except HttpError as error:
        report.meaning = str(error)
    else:
        judge(report, response)
    return report


def _response(answer: TunnelAnswer) -> Response:
    if answer.error is not None or answer.status is None:
        raise HttpError(answer.error or "no answer came")
    return Response(answer.status, answer.headers, answer.body, answer.is_cut)

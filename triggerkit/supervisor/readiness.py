"""Whether a change that is committed now would run, by the processes as they show themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triggerkit.delivery.http.client import HttpClient
from triggerkit.delivery.http.connection import HttpError
from triggerkit.delivery.http.network import checked, reachable
from triggerkit.errors import ConfigurationError
from triggerkit.runs.admin.workers import WorkerInfo
from triggerkit.settings import Settings

#: Seconds in which `serve` has answered.
SERVE_S = 1.0


@dataclass(frozen=True, slots=True)
class Missing:
    """What keeps a change from running, and the command that brings it."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}; start it with: {self.remedy}"


async def serves(settings: Settings) -> bool:
    """Return whether `serve` answers under the URL that deliveries go to."""
    try:
        client = HttpClient(
            checked(reachable(settings.triggerkit_allow_networks, settings.public_url))
        )
    except ConfigurationError:
        return False
    try:
        async with asyncio.timeout(SERVE_S):
            url = f"{settings.public_url}/healthz"
            answer = await client.request("GET", url, {"user-agent": "triggerkit"})
    except (HttpError, TimeoutError):
        return False
    finally:
        client.close()
    return answer.status == 200 and b'"alive"' in answer.body


def processes_of(
    databases: Sequence[dict[str, Any]], workers: Sequence[WorkerInfo], *, serves: bool
) -> list[dict[str, Any]]:
    """Return the processes of production, by the slot that they hold, their answer, their
    heartbeat. `pid` is None where it is not known."""
    streams = [database["slot_active"] for database in databases]
    listed = [_process("stream", None, is_running=any(streams))] if streams else []
    listed.append(_process("serve", None, is_running=serves))
    names = [f"worker-{n}" for n in range(1, len(workers) + 1)] if len(workers) > 1 else ["worker"]
    for name, worker in zip(names, workers, strict=False):
        listed.append(_process(name, worker.pid, is_running=worker.alive is not False))
    if not workers:
        listed.append(_process("worker", None, is_running=False))
    return listed


def missing(
    health: Mapping[str, Sequence[dict[str, Any]]],
    processes: Sequence[dict[str, Any]],
    public_url: str,
    *,
    declares: bool,
) -> Iterator[Missing]:
    """Yield what keeps a change from running. `declares`: tasks follow tables, applied or not.

    Consumers that push to others, or are pulled, need neither `serve` nor a worker.
    """
    consumers = health["consumers"]
    routes = [c for c in consumers if str(c["endpoint_url"]).startswith(f"{public_url}/")]
    own = [*routes, *(c for c in consumers if c["via"] == "direct")]
    running = {process["name"] for process in processes if process["state"] == "running"}
    if not consumers and declares:
        yield Missing("nothing is captured yet", "triggerkit apply")
    if consumers and all(database["slot_active"] is False for database in health["databases"]):
        yield Missing("no stream reads the source's changes", "triggerkit stream")
    if routes and "serve" not in running:
        yield Missing("serve does not answer", "triggerkit serve")
    has_worker = any(name == "worker" or name.startswith("worker-") for name in running)
    if (own or not consumers) and not has_worker:
        yield Missing("no worker is running", "triggerkit worker")


def _process(name: str, pid: int | None, *, is_running: bool) -> dict[str, Any]:
    return {"name": name, "pid": pid, "state": "running" if is_running else "stopped"}

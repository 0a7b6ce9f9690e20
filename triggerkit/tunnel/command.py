"""Run the command `tunnel`: its connection, what it delivers, its lines and its keys."""

from __future__ import annotations

import asyncio
import signal
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from triggerkit.tunnel.connection import TunnelConnection
from triggerkit.tunnel.deliveries import Deliveries
from triggerkit.tunnel.display import Display, Filter, Output, left_out
from triggerkit.tunnel.keys import has_keys, read_keys
from triggerkit.tunnel.port import Ports
from triggerkit.tunnel.printer import Printer
from triggerkit.tunnel.server import Server


@dataclass(frozen=True, slots=True)
class TunnelOptions:
    """What the command was asked for; `ports` by the name of their endpoint."""

    server: Server
    token: str
    ports: dict[str, int]
    share: bool
    output: Output
    wanted: Filter


async def run_tunnel(options: TunnelOptions, write: Callable[[str], None]) -> None:
    """Run until a signal ends it, or nobody reads what it prints any more.

    Raises:
        TunnelRefused: the server does not open the tunnels, or ended them for good.
        CannotConnect: no server is there.
        OSError: its lines cannot be written, though somebody reads them.
    """
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    printer = Printer(
        write, partial(left_out, options.output), lambda: _call(loop, interrupted.set)
    )
    ports = Ports(options.ports)
    display = Display(options.output, options.wanted, printer, ports.url, has_keys())
    deliveries = Deliveries(ports, display.delivered)
    connection = TunnelConnection(
        options.server,
        options.token,
        options.ports,
        deliveries,
        display,
        share=options.share,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    running = asyncio.create_task(connection.run(), name="tunnels")
    ending = asyncio.create_task(interrupted.wait(), name="interrupted")
    keys = _Keys(options.server, connection, display)
    try:
        with read_keys(keys.pressed):
            await asyncio.wait({running, ending}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            await connection.end()
            display.ended()
    finally:
        for task in (running, ending, *keys.tasks):
            task.cancel()
        await asyncio.gather(running, ending, *keys.tasks, return_exceptions=True)
        await deliveries.close()
        printer.close()
    if printer.error is not None and not isinstance(printer.error, BrokenPipeError):
        raise printer.error


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with suppress(RuntimeError):
        # The loop may have ended meanwhile.
        loop.call_soon_threadsafe(function)


class _Keys:
    """What is done by a key, about what was printed last."""

    def __init__(self, server: Server, connection: TunnelConnection, display: Display) -> None:
        self._server = server
        self._connection = connection
        self._display = display
        self.tasks: set[asyncio.Task[None]] = set()

    def pressed(self, key: str) -> None:
        """Do what the key is for."""
        work = {"r": self._again, "o": self._open}.get(key.lower())
        if key.lower() == "d":
            self._display.details()
        elif work is not None:
            task = asyncio.create_task(work(), name=f"key {key}")
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _again(self) -> None:
        last = self._display.last
        if last is None:
            self._display.write("nothing was delivered yet")
        elif not self._connection.is_open:
            self._display.write("there is no connection now; press r once it is back")
        elif not await self._connection.again(last.batch_id):
            self._display.write("it does not come again: the server keeps the last few alone")

    async def _open(self) -> None:
        last = self._display.last
        url = self._server.dashboard_url(None if last is None else last.push.endpoint)
        if not await asyncio.to_thread(webbrowser.open, url):
            self._display.write(url)

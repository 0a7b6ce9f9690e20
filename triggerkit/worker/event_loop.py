"""The event loop on which the async tasks of all the worker's threads run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import wait
from typing import Any

logger = logging.getLogger("triggerkit.worker")

#: Seconds that what is canceled at the end may take.
END_S = 2.0

#: Seconds for which a thread waits in one go: what it executes can be stopped then.
LOOK_S = 0.25


class EventLoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="async tasks", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run `coroutine` there, wait for its end, and return or raise what it did."""
        future = asyncio.run_coroutine_threadsafe(_outcome_of(coroutine), self._loop)
        try:
            # In one long wait, nothing that is raised in this thread from outside would be seen.
            while not wait([future], LOOK_S).done:
                pass
            value, error = future.result()
        finally:
            future.cancel()
        if error is not None:
            raise error
        return value

    def call(self, function: Callable[..., object], *given: object) -> None:
        """Call `function` there, soon."""
        self._loop.call_soon_threadsafe(function, *given)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop."""
        return self._loop

    @property
    def thread_id(self) -> int:
        """The thread it runs on."""
        return self._thread.ident or 0

    def stop(self) -> None:
        """End the loop; what tasks left running on it is canceled, and not waited for if it refuses
        to end."""
        self._stopping = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(END_S)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            loop = runner.get_loop()
            while not self._stopping:
                # A `sys.exit()` in a coroutine of a task's own reaches who waits for that, and ends
                # the loop; so does its `stop()`. All other runs are on it.
                try:
                    loop.run_forever()
                except (SystemExit, KeyboardInterrupt) as error:
                    with contextlib.suppress(Exception):
                        logger.warning(
                            "%s in a coroutine that a task started", type(error).__name__
                        )


async def _outcome_of(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    # An error travels as a value: a SystemExit raised here would end the loop, and with it every
    # other task.
    try:
        return await coroutine, None
    except BaseException as error:
        return None, error

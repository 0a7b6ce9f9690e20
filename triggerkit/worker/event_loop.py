"""The event loop on which the async tasks of all the worker's threads run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

#: Seconds that what is canceled at the end may take.
END_S = 2.0


class EventLoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="async tasks", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run `coroutine` there, wait for its end, and return or raise what it did."""
        value, error = asyncio.run_coroutine_threadsafe(_outcome_of(coroutine), self._loop).result()
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
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(END_S)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()


async def _outcome_of(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    # An error travels as a value: a SystemExit raised here would end the loop, and with it every
    # other task.
    try:
        return await coroutine, None
    except BaseException as error:
        return None, error

"""Call a consumer's filter and transform in a process of their own, each within a deadline.

A thread that computes cannot be stopped, and would hold up everything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from triggerkit.consumers.calls.child import FAULT, SENT, UNWANTED
from triggerkit.consumers.calls.process import MESSAGE, Process
from triggerkit.consumers.selection import Faulty

#: Seconds that the functions may take for one message.
CALL_S = 10.0

#: What the functions made of a message: None when it is not wanted, else what is sent.
Outcome = bytes | Faulty | None


class Functions:
    """The filter and the transform of one consumer; calls of several lanes go one after another."""

    def __init__(self, filter_: str | None, transform: str | None) -> None:
        self._names = (filter_, transform)
        what = ["filter"] * bool(filter_) + ["transform"] * bool(transform)
        self._what = " or ".join(what)
        self._child: Process | None = None
        self._calling = asyncio.Lock()
        self._is_closed = False

    async def start(self) -> None:
        """Load the functions.

        Raises:
            ConfigurationError: they cannot be.
        """
        async with self._calling:
            await self._running()

    async def call(self, messages: Sequence[bytes]) -> list[Outcome]:
        """Return what the functions make of each message.

        Raises:
            ConfigurationError: they had to be loaded anew, and cannot be any more.
        """
        async with self._calling:
            outcomes: list[Outcome] = []
            while len(outcomes) < len(messages):
                outcomes += await self._call_some(messages[len(outcomes) :])
            if self._is_closed:
                await self.end()
            return outcomes

    async def close(self) -> None:
        """End the process, once nothing is under way."""
        self._is_closed = True
        async with self._calling:
            await self.end()

    async def end(self) -> None:
        """End the process at once."""
        child, self._child = self._child, None
        if child is not None:
            await child.reap()

    async def _call_some(self, messages: Sequence[bytes]) -> list[Outcome]:
        """Call up to the first message that ends the process, or is ended with it."""
        child = await self._running()
        outcomes: list[Outcome] = []
        try:
            # Written beside the reading: what the pipe does not hold, the transport keeps.
            for message in messages:
                child.write(MESSAGE, message)
            for message in messages:
                async with asyncio.timeout(CALL_S):
                    outcomes.append(_outcome(message, *await child.read()))
        except TimeoutError:
            outcomes.append(Faulty(f"the {self._what} took longer than {CALL_S:g} s"))
            await self.end()
        except (asyncio.IncompleteReadError, OSError):
            outcomes.append(Faulty(f"the {self._what} ended the process that called it"))
            await self.end()
        except BaseException:
            # Answers to come would be taken for those of other messages.
            await self.end()
            raise
        return outcomes

    async def _running(self) -> Process:
        if self._child is None:
            self._child = await Process.start(
                "triggerkit.consumers.calls.child",
                " and ".join(filter(None, self._names)),
                functions=self._names,
            )
        return self._child


def _outcome(message: bytes, kind: bytes, content: bytes) -> Outcome:
    if kind == UNWANTED:
        return None
    if kind == FAULT:
        return Faulty(content.decode())
    return content if kind == SENT else message

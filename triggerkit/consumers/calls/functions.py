"""Call a consumer's filter and transform in a process of their own, each within a deadline.

A thread that computes cannot be stopped, and would hold up everything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from triggerkit.consumers.calls.child import FAULT, SENT, UNWANTED, WANTED_BEFORE
from triggerkit.consumers.calls.process import MESSAGE, SPENT, Process
from triggerkit.consumers.selection import UNWANTED as NOT_WANTED
from triggerkit.consumers.selection import WANTED, Faulty, Verdict

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
                outcomes += await self._call_some(messages[len(outcomes) :], MESSAGE)
            if self._is_closed:
                await self.end()
            return outcomes

    async def call_some(
        self, messages: Sequence[bytes], *, were_wanted: bool = False
    ) -> list[Outcome]:
        """Return what the functions make of the messages up to the first that ends their process,
        or is ended with it. Those that `were_wanted` before stay so, whatever the filter says.

        Raises:
            ConfigurationError: they had to be loaded anew, and cannot be any more.
        """
        async with self._calling:
            outcomes = await self._call_some(messages, WANTED_BEFORE if were_wanted else MESSAGE)
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

    async def _call_some(
        self, messages: Sequence[bytes], kind: bytes, *, is_again: bool = False
    ) -> list[Outcome]:
        child = await self._running()
        outcomes: list[Outcome] = []
        try:
            # Written beside the reading: what the socket does not hold, the transport keeps.
            for message in messages:
                child.write(kind, message)
            for message in messages:
                async with asyncio.timeout(CALL_S):
                    answer, content = await child.read()
                outcomes.append(_outcome(message, answer, content))
                if answer == SPENT:
                    await self.end()
                    break
        except TimeoutError:
            outcomes.append(Faulty(f"the {self._what} took longer than {CALL_S:g} s"))
            await self.end()
        except (asyncio.IncompleteReadError, OSError):
            await self.end()
            if not is_again:
                # Others end processes, too: the message is blamed when it happens again with it.
                message = messages[len(outcomes)]
                return outcomes + await self._call_some([message], kind, is_again=True)
            outcomes.append(Faulty(f"the {self._what} ended the process that called it"))
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


def verdict_of(outcome: Outcome) -> Verdict:
    """Return whether its consumer gets a message of which functions made `outcome`."""
    if isinstance(outcome, Faulty):
        return Verdict(True, outcome)
    return NOT_WANTED if outcome is None else WANTED


def _outcome(message: bytes, kind: bytes, content: bytes) -> Outcome:
    if kind == UNWANTED:
        return None
    if kind in (FAULT, SPENT):
        return Faulty(content.decode())
    return content if kind == SENT else message

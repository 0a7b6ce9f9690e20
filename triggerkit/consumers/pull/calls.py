"""What a pulled consumer's functions make of messages: they are called while nothing is locked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from triggerkit.consumers.calls.functions import Functions, Outcome
from triggerkit.consumers.consumer import Consumer

#: Seconds after which a caller gets what was made by then, if that is anything.
PATIENCE_S = 10.0

#: Messages that the functions get at once at most. The first time it is one, then twice as many
#: each time, for as long as they take less than so many seconds.
CALLED_TOGETHER = 1024
CALLED_S = 0.5


class PulledFunctions(Functions):
    """The functions of one pulled consumer. Callers that need them take turns: what one has made
    of messages that another is handed out would have to be thrown away."""

    def __init__(self, names: tuple[str | None, str | None]) -> None:
        super().__init__(*names)
        self.names = names
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def in_turn(self) -> AsyncIterator[bool]:
        """Take a turn: whether there is one soon."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._turn.acquire()
        except TimeoutError:
            yield False
            return
        try:
            yield True
        finally:
            self._turn.release()


class Uncalled(NamedTuple):
    """Messages for which functions have to be called before they can be handed out, or not: those
    of the log, and those that were handed back."""

    functions: PulledFunctions
    messages: Sequence[bytes]
    handed_back: Sequence[bytes]


class Made:
    """What functions made of the messages that one caller may get."""

    def __init__(self) -> None:
        self.of_log: dict[bytes, Outcome] = {}
        self.of_handed_back: dict[bytes, Outcome] = {}
        self.unwanted = 0
        self._functions: PulledFunctions | None = None
        self._until = asyncio.get_running_loop().time() + PATIENCE_S
        self._together = 1

    @property
    def suffices(self) -> bool:
        """Return whether the caller has waited long enough for what is to be had."""
        return asyncio.get_running_loop().time() >= self._until

    def by(self, functions: PulledFunctions | None) -> None:
        """Forget what others than `functions` made: the consumer has these now."""
        if functions is not self._functions:
            self._functions = functions
            self.forget()

    def forget(self) -> None:
        """Forget what was made: the cursors are past it."""
        self.of_log, self.of_handed_back = {}, {}

    async def add(self, uncalled: Uncalled) -> None:
        """Call the functions for some more messages.

        Raises:
            ConfigurationError: they cannot be loaded.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        for messages, made, were_wanted in (
            (uncalled.handed_back[: self._together], self.of_handed_back, True),
            (uncalled.messages[: self._together], self.of_log, False),
        ):
            if messages:
                outcomes = await uncalled.functions.call_some(messages, were_wanted=were_wanted)
                made.update(zip(messages, outcomes, strict=False))
                self.unwanted += outcomes.count(None)
        if loop.time() - began < CALLED_S:
            self._together = min(2 * self._together, CALLED_TOGETHER)
        else:
            self._together = max(self._together // 2, 1)


def names_of(consumer: Consumer) -> tuple[str | None, str | None]:
    """Return the names of a consumer's filter and transform."""
    return consumer.definition.filter, consumer.definition.transform

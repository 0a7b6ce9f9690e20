"""Forms that are sent twice, as a double click does: the second gets the answer of the first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from triggerkit.web.dashboard.page import Answer, Asked, Shown

#: Seconds for which an answer is kept, and how many are.
KEPT_S: Final = 60.0
MOST_KEPT: Final = 200


@dataclass(frozen=True, slots=True)
class _Sent:
    answer: asyncio.Future[Answer] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    at: float = field(default_factory=time.monotonic)


class SentForms:
    """The forms that were sent to this process lately. What was refused may be sent again."""

    def __init__(self) -> None:
        self._sent: dict[str, _Sent] = {}

    async def answered(self, asked: Asked, post: Callable[[Asked], Awaitable[Answer]]) -> Answer:
        """Return what `post` answers, or what it answered to the same form before."""
        name = asked.form_name
        if name is None:
            return await post(asked)
        self._forget()
        if (before := self._sent.get(name)) is not None:
            return await asyncio.shield(before.answer)
        sent = self._sent[name] = _Sent()
        try:
            answer = await post(asked)
        except BaseException as error:
            del self._sent[name]
            sent.answer.set_exception(error if isinstance(error, Exception) else TimeoutError())
            # Nobody may wait for it.
            sent.answer.exception()
            raise
        sent.answer.set_result(answer)
        if isinstance(answer, Shown) and answer.status >= 400:
            del self._sent[name]
        return answer

    def _forget(self) -> None:
        """Drop what is old, and the oldest of too many; what is under way stays."""
        too_many = len(self._sent) - MOST_KEPT
        for place, (name, sent) in enumerate(list(self._sent.items())):
            is_old = time.monotonic() - sent.at > KEPT_S
            if sent.answer.done() and (is_old or place < too_many):
                del self._sent[name]

"""Read what is asked about: a row, a run, a position of the log, or an idempotency key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from psycopg_pool import AsyncConnectionPool

from triggerkit.consumers.definition import TableName
from triggerkit.errors import ConfigurationError
from triggerkit.runs.run import is_run_id
from triggerkit.settings import Settings
from triggerkit.tasks.task import Task
from triggerkit.why.answer import Answer
from triggerkit.why.explain import Why

#: The greatest position there can be has so many digits at most.
POSITION_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about: exactly one of row, run, position and idempotency key."""

    table: TableName | None = None
    key: tuple[str, ...] = ()
    run: str | None = None
    position: int | None = None
    idempotency_key: str | None = None
    consumer: str | None = None

    @classmethod
    def of(cls, words: Sequence[str], consumer: str | None = None) -> Self:
        """Read the arguments of the command.

        Raises:
            ConfigurationError: they are none of these, such as a table without a key.
        """
        if any("\x00" in word for word in words):
            raise ConfigurationError("a key cannot contain a NUL character")
        first, *key = words
        if key:
            return cls(TableName.parse(first), tuple(key), consumer=consumer)
        if is_run_id(first):
            return cls(run=first, consumer=consumer)
        if first.isascii() and first.isdecimal() and len(first) <= POSITION_DIGITS:
            return cls(position=int(first), consumer=consumer)
        if first.replace(".", "").replace("_", "").isalpha():
            raise ConfigurationError(f"give the key of a row, too: triggerkit why {first} KEY")
        return cls(idempotency_key=first, consumer=consumer)


async def ask(
    states: AsyncConnectionPool,
    settings: Settings,
    tasks: Sequence[Task[Any, Any, Any]],
    question: Question,
) -> Answer:
    """Return the answer.

    Raises:
        UnknownRun, ConfigurationError, TriggerkitError: there is nothing of this name.
    """
    why = Why(states, settings, tasks)
    if question.run is not None:
        return await why.run(question.run)
    if question.position is not None:
        return await why.change(question.position, question.consumer)
    if question.idempotency_key is not None:
        return await why.idempotency_key(question.idempotency_key)
    assert question.table is not None
    return await why.row(question.table, question.key, question.consumer)

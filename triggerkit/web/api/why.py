"""Why a row has no effect, through the API: the same answer as the command's."""

from __future__ import annotations

from triggerkit.consumers.definition import TableName
from triggerkit.errors import CannotConnect, ConfigurationError, TriggerkitError
from triggerkit.web.api.operation import Call, Given
from triggerkit.web.api.problems import NotFound
from triggerkit.why.answer import Answer
from triggerkit.why.ask import Question, ask


class Asked(Given):
    """A row by `table` and `key`, which is repeated for each column of the primary key; or a `run`,
    a `position` in the log, or the `idempotency_key` of a message or run. Of one `consumer`
    alone."""

    table: str | None = None
    key: list[str] = []
    run: str | None = None
    position: int | None = None
    idempotency_key: str | None = None
    consumer: str | None = None


async def show_why(call: Call, query: Asked) -> Answer:
    """Return why a row, a change or a run has no effect: one `conclusion` with its `code`, the
    `remedy` where a command or SQL mends it, and the `steps` on its way, the newest first. A row is
    looked for from the log's end backwards, for less than a second, to `searched_from`."""
    question = _question(query)
    try:
        return await ask(call.client.pool, call.settings, call.tasks, question)
    except (CannotConnect, ConfigurationError):
        raise
    except TriggerkitError as error:
        raise NotFound(str(error)) from None


def _question(query: Asked) -> Question:
    named = (query.table, query.run, query.position, query.idempotency_key)
    if sum(value is not None for value in named) != 1:
        raise ConfigurationError("give one of table (with key), run, position, idempotency_key")
    if any("\x00" in str(value) for value in (*named, *query.key)):
        raise ConfigurationError("a key cannot contain a NUL character")
    if query.table is not None and not query.key:
        raise ConfigurationError("give the key of the row, too: key=…")
    return Question(
        table=None if query.table is None else TableName.parse(query.table),
        key=tuple(query.key),
        run=query.run,
        position=query.position,
        idempotency_key=query.idempotency_key,
        consumer=query.consumer,
    )

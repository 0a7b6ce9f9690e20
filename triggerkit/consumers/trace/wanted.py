"""Why a consumer does not get a change."""

from __future__ import annotations

from typing import Literal

from triggerkit.configuration.table_name import table_text
from triggerkit.consumers.calls.functions import Functions, verdict_of
from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.filters.filter import Filter
from triggerkit.consumers.selection import WANTED, Selection, Verdict
from triggerkit.errors import ConfigurationError
from triggerkit.log.entry import Entry

#: The part of a consumer's definition by which it does not get a change.
UnwantedBy = Literal["tables", "actions", "when_changed", "filter"]


def follows(consumer: Consumer, entry: Entry) -> bool:
    """Return whether the consumer follows the table of `entry`, or had it read for itself."""
    if entry.consumer_id is not None:
        return entry.consumer_id == consumer.id
    return table_text(entry.schema, entry.table) in consumer.definition.tables


async def why_not(consumer: Consumer, entry: Entry) -> tuple[UnwantedBy, str] | None:
    """Return why the consumer, as it is defined now, does not get `entry`, and by what; None if it
    does."""
    if not follows(consumer, entry):
        return "tables", f"it does not follow {table_text(entry.schema, entry.table)}"
    if not consumer.wants(entry):
        return unwanted(consumer, entry)
    try:
        verdict = await _verdict(consumer, entry)
    except ConfigurationError:
        # A function that only the stream can load: what was delivered tells more.
        return None
    return None if verdict.is_wanted else ("filter", filtered_by(consumer))


def unwanted(consumer: Consumer, entry: Entry) -> tuple[UnwantedBy, str]:
    """Return why the consumer does not want `entry`, of a table that it follows, its filters left
    aside."""
    definition = consumer.definition
    if definition.actions is not None and entry.action not in definition.actions:
        listed = ", ".join(definition.actions)
        return "actions", f"{entry.action} is not among its actions ({listed})"
    listed = ", ".join(definition.when_changed or ())
    return "when_changed", f"none of its columns when_changed changed ({listed})"


def filtered_by(consumer: Consumer) -> str:
    """Return what the consumer's filters are, as the reason for not getting a change."""
    definition = consumer.definition
    by = [*map(_filter_text, definition.filters), *filter(None, [definition.filter])]
    return f"filtered by {'; '.join(by)}"


async def _verdict(consumer: Consumer, entry: Entry) -> Verdict:
    selection = Selection(consumer)
    verdict = selection.wants(entry)
    if verdict != WANTED or consumer.definition.filter is None:
        return verdict
    functions = Functions(consumer.definition.filter, None)
    try:
        (outcome,) = await functions.call([selection.message(entry)])
    finally:
        await functions.end()
    return verdict_of(outcome)


def _filter_text(given: Filter) -> str:
    value = "" if given.value is None else f" {given.value}"
    return f"{given.column} {given.operator}{value}"

"""Messages taken out of the way of the others: refused, named as failed, or behind such a one."""

from __future__ import annotations

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.cursor import ParkedMessage
from triggerkit.consumers.render import Renderer, idempotency_key
from triggerkit.delivery.batch import Batch, row_of
from triggerkit.delivery.push import Answer


def alone(batch: Batch, reason: str) -> ParkedMessage:
    """The one message of `batch`."""
    entry = batch.entries[0]
    return ParkedMessage(entry.position, row_of(entry), batch.messages[0], reason)


def named(consumer: Consumer, batch: Batch, answer: Answer) -> list[ParkedMessage]:
    """The messages that the answer names as failed."""
    reasons = {item.idempotency_key: item.error for item in answer.failed}
    if not reasons:
        return []
    keys = [idempotency_key(consumer, entry) for entry in batch.entries]
    return [
        ParkedMessage(entry.position, row_of(entry), message, reasons[key])
        for entry, message, key in zip(batch.entries, batch.messages, keys, strict=True)
        if key in reasons
    ]


def behind(renderer: Renderer, batch: Batch) -> list[ParkedMessage]:
    """The messages of `batch` whose row has a parked one."""
    reason = "waits behind a parked message of its row"
    return [
        ParkedMessage(entry.position, row_of(entry), renderer.message(entry), reason)
        for entry in batch.waiting
    ]

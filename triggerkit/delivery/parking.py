"""Messages taken out of the way of the others: refused, named as failed, or behind such a one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.consumers.parked.message import HeadState, ParkedMessage
from triggerkit.consumers.parked.origin import Origin
from triggerkit.consumers.render import IdempotencyKeys
from triggerkit.consumers.selection import Selection
from triggerkit.delivery.batch import Batch, EntryToPark
from triggerkit.delivery.failed_items import Failed
from triggerkit.delivery.push import Answer
from triggerkit.log.entry import Entry
from triggerkit.state.backoff import backoff_s


def state_after(definition: ConsumerDefinition, failures: int) -> HeadState:
    """Return what becomes of a message at the head of its key after so many failures that count."""
    if definition.max_attempts is None or failures < definition.max_attempts:
        return "failing"
    return given_up(definition)


def given_up(definition: ConsumerDefinition) -> HeadState:
    """Return what becomes of a message that is not tried again."""
    return "dead" if definition.on_exhausted == "skip" else "blocked"


def alone(
    consumer: Consumer, partition: int, batch: Batch, answer: Answer, reason: str
) -> ParkedMessage:
    """Return the one message of `batch`: its first attempt counts."""
    failed = Failed("", reason, None)
    return _failed(consumer, partition, batch.entries[0], batch.message(0), failed, answer.status)


def of_batch(
    consumer: Consumer,
    partition: int,
    batch: Batch,
    answer: Answer,
    refused: Sequence[ParkedMessage],
) -> list[ParkedMessage]:
    """Return all that is parked of `batch`, in order: what was `refused`, what `answer` names as
    failed, and what was set aside when it was collected."""
    parked = [*refused, *named(consumer, partition, batch, answer)]
    parked += held(consumer, batch.selection, partition, batch)
    return sorted(parked, key=lambda message: message.position)


def named(consumer: Consumer, partition: int, batch: Batch, answer: Answer) -> list[ParkedMessage]:
    """Return the messages that the answer names as failed: their first attempt counts."""
    failed = {item.idempotency_key: item for item in answer.failed}
    if not failed:
        return []
    keys = keys_of(consumer, batch)
    return [
        _failed(consumer, partition, entry, batch.message(number), item, answer.status)
        for number, (entry, key) in enumerate(zip(batch.entries, keys, strict=True))
        if (item := failed.get(key)) is not None
    ]


def keys_of(consumer: Consumer, batch: Batch) -> list[str]:
    """Return the idempotency keys of the messages that were sent, in order."""
    return list(map(IdempotencyKeys(consumer).of, batch.entries))


def held(
    consumer: Consumer, selection: Selection, partition: int, batch: Batch
) -> list[ParkedMessage]:
    """Return the messages that were set aside when `batch` was collected."""
    return [_set_aside(consumer, selection, partition, item) for item in batch.held]


def in_its_place(definition: ConsumerDefinition, batch: Batch, answer: Answer, sent: int) -> Answer:
    """Return `answer`, that to the attempt number `sent`; if it names a truncate as failed, one by
    which that is sent again, as long as it has attempts left: parked, it would come after what was
    written since."""
    is_truncate = len(batch.entries) == 1 and batch.entries[0].action == "truncate"
    if not is_truncate or state_after(definition, sent) != "failing":
        return answer
    [failed] = answer.failed
    return replace(
        answer,
        verdict="endpoint_failed",
        failed=(),
        error=failed.error,
        retry_after_s=failed.retry_after_s,
    )


def _failed(
    consumer: Consumer,
    partition: int,
    entry: Entry,
    message: bytes,
    failed: Failed,
    status: int | None,
) -> ParkedMessage:
    return ParkedMessage(
        partition=partition,
        position=entry.position,
        key=consumer.key_of(entry),
        body=message,
        reason=failed.error,
        status=status,
        failures=1,
        due_in_s=backoff_s(1, failed.retry_after_s),
        # What was written after a truncate goes on without it, and it does not come after that.
        state="dead" if entry.action == "truncate" else state_after(consumer.definition, 1),
        origin=Origin.of(entry, IdempotencyKeys(consumer).of(entry)),
    )


def _set_aside(
    consumer: Consumer, selection: Selection, partition: int, item: EntryToPark
) -> ParkedMessage:
    entry, key, fault = item
    group = "row" if consumer.definition.group_by is None else "group"
    message = ParkedMessage(
        partition=partition,
        position=entry.position,
        key=key,
        body=selection.message(entry),
        reason=f"waits behind a parked message of its {group}",
        origin=Origin.of(entry, IdempotencyKeys(consumer).of(entry)),
    )
    if fault is None:
        return message
    if entry.action == "truncate":
        return message.with_fault(fault.reason, "dead", failures=int(fault.is_retryable))
    if not fault.is_retryable:
        return message.with_fault(fault.reason, given_up(consumer.definition), failures=0)
    state = state_after(consumer.definition, 1)
    return message.with_fault(fault.reason, state, failures=1, due_in_s=backoff_s(1))

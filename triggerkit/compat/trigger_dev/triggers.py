"""Triggering by the SDK: one run, or the items of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from triggerkit.compat.trigger_dev.batches import (
    Batch,
    create_batch,
    find_batch,
    seal_batch,
)
from triggerkit.compat.trigger_dev.call import SdkCall
from triggerkit.compat.trigger_dev.given import (
    MAX_ITEMS_BYTES,
    MOST_ITEMS,
    Item,
    NewBatch,
    Trigger,
    body_of,
    read_as,
)
from triggerkit.compat.trigger_dev.idempotency import free_failed
from triggerkit.compat.trigger_dev.payloads.packets import STORED, Packets, find_packets
from triggerkit.compat.trigger_dev.payloads.super_json import read_packet
from triggerkit.compat.trigger_dev.shapes import BATCH, REQUEST
from triggerkit.errors import ConfigurationError, FieldProblem, InvalidPayload
from triggerkit.runs.run import NewRun
from triggerkit.state.short_key import short_key
from triggerkit.tasks.receive.body import BodyRefused
from triggerkit.tasks.triggering import TriggerOptions
from triggerkit.web.body import read_body

#: How long a request may be sent again and make no second run.
AGAIN_S: Final = timedelta(hours=1).total_seconds()

#: How long the items of a batch may.
ITEMS_AGAIN_S: Final = timedelta(days=1).total_seconds()


async def trigger_task(sdk: SdkCall) -> dict[str, Any]:
    """Make a run of a task. It is durable when this is answered."""
    body = await body_of(sdk.request, Trigger)
    options = body.options.as_asked()
    has_key = "idempotency_key" in options
    if sdk.once is not None and not has_key and "debounce" not in options:
        options["idempotency_key"] = sdk.once
        options["idempotency_ttl"] = AGAIN_S
    packets = await _packets(sdk, [body])
    run = _run(sdk, sdk.path["name"], body, options, packets)
    if has_key:
        run = replace(run, source=None if sdk.once is None else {REQUEST: sdk.once})
        await free_failed(sdk, [run], sdk.once)
    [handle] = await sdk.call.client.accept([run])
    return {"id": handle.id, "isCached": has_key and handle.duplicate}


async def announce_batch(sdk: SdkCall) -> dict[str, Any]:
    """Make a batch; its items follow. One whose items never came is not done yet."""
    body = await body_of(sdk.request, NewBatch)
    key = None if body.idempotencyKey is None else short_key(body.idempotencyKey)
    async with sdk.call.state() as state:
        batch = await create_batch(state, body.runCount, key)
    return _announced(batch)


async def stream_items(sdk: SdkCall) -> dict[str, Any]:
    """Make the runs of a batch, all or none; those that came before are not made again."""
    raw = await read_body(sdk.request, MAX_ITEMS_BYTES, of_any_type=True)
    async with sdk.call.state() as state:
        batch = await find_batch(state, sdk.path["id"])
    items = _items(raw, batch.run_count)
    if batch.runs is not None:
        return _sealed(batch, accepted=0)
    packets = await _packets(sdk, items)
    runs = [_item_run(sdk, batch, item, packets) for item in items]
    keyed = [r for r, i in zip(runs, items, strict=True) if i.options.idempotencyKey is not None]
    await free_failed(sdk, keyed, batch.id)
    handles = await sdk.call.client.accept(runs)
    async with sdk.call.state() as state:
        await seal_batch(state, batch.id, [handle.id for handle in handles])
    return _sealed(batch, accepted=sum(not handle.duplicate for handle in handles))


async def show_batch(sdk: SdkCall) -> dict[str, Any]:
    """Return a batch with the ids of its runs."""
    async with sdk.call.state() as state:
        batch = await find_batch(state, sdk.path["id"])
        unfinished = await _unfinished(state, batch.runs or ())
    is_done = batch.runs is not None and not unfinished
    return {
        "id": batch.id,
        "status": "COMPLETED" if is_done else "PENDING",
        "createdAt": batch.created_at,
        "updatedAt": batch.sealed_at or batch.created_at,
        "runCount": batch.run_count,
        "runs": batch.runs or [],
        "processing": {"errors": []},
    }


async def _unfinished(state: Any, runs: Sequence[str]) -> bool:
    query = (
        "SELECT EXISTS (SELECT FROM triggerkit.runs WHERE id = ANY (%s) AND finished_at IS NULL)"
    )
    row = await (await state.execute(query, [list(runs)])).fetchone()
    return bool(row[0])


def _announced(batch: Batch) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": batch.id,
        "runCount": batch.run_count,
        # Else the client would leave out the items that did not come.
        "isCached": batch.runs is not None,
    }
    return shown


def _sealed(batch: Batch, *, accepted: int) -> dict[str, Any]:
    return {
        "id": batch.id,
        "itemsAccepted": accepted,
        "itemsDeduplicated": batch.run_count - accepted,
        "sealed": True,
        "runCount": batch.run_count,
    }


def _items(raw: bytes, count: int) -> list[Item]:
    lines = [line for line in raw.split(b"\n") if line.strip()]
    if len(lines) > MOST_ITEMS:
        raise BodyRefused(413, f"a batch has at most {MOST_ITEMS} items")
    items = sorted((read_as(Item, line) for line in lines), key=lambda item: item.index)
    if [item.index for item in items] != list(range(count)):
        raise BodyRefused(
            422, f"the batch was made for {count} items, numbered from 0; {len(items)} came"
        )
    return items


def _item_run(sdk: SdkCall, batch: Batch, item: Item, packets: Packets) -> NewRun:
    options = item.options.as_asked()
    if "debounce" in options:
        raise ConfigurationError(f"item {item.index}: debounce works only with a single trigger")
    if "idempotency_key" not in options:
        options["idempotency_key"] = f"{batch.id}/{item.index}"
        options["idempotency_ttl"] = ITEMS_AGAIN_S
    try:
        run = _run(sdk, item.task, item, options, packets)
    except InvalidPayload as error:
        placed = [FieldProblem((item.index, *p.loc), p.msg) for p in error.problems]
        raise InvalidPayload(placed) from None
    return replace(run, source={BATCH: batch.id})


async def _packets(sdk: SdkCall, given: Sequence[Trigger]) -> Packets:
    """Return the payloads among `given` that were stored apart."""
    ids = [str(one.payload) for one in given if one.options.payloadType == STORED]
    if not ids:
        return {}
    async with sdk.call.state() as state:
        return await find_packets(state, ids)


def _run(
    sdk: SdkCall, name: str, given: Trigger, options: TriggerOptions, packets: Packets
) -> NewRun:
    data, kind = given.payload, given.options.payloadType
    if kind == STORED:
        _, kind, data = packets[str(data)]
    return sdk.task(name).new_run(read_packet(data, kind), options)

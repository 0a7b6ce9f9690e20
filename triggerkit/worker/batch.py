"""Batches: their items, and the runs of single items that fail in one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from typing import Any

import msgspec

from triggerkit.errors import FieldProblem, InvalidPayload, RetryAfter
from triggerkit.message import BatchResult, Change, ItemFailure
from triggerkit.runs.run import ClaimedRun, NewRun
from triggerkit.tasks.payload.payload_type import PayloadType, Shape, read_envelopes
from triggerkit.worker.failure import Failure, failure_of, verdict_in

#: The shortest wait of an item that is tried again, in seconds: it is never simply queued, so that
#: the runs list shows that it failed.
MIN_WAIT_S = 0.001


class _Data(msgspec.Struct):
    data: list[msgspec.Raw]


class _Messages:
    """The messages of a batch run as they came: looked at only when one becomes its own run."""

    def __init__(self, run: ClaimedRun) -> None:
        self._run = run

    @cached_property
    def raw(self) -> list[msgspec.Raw]:
        return msgspec.json.decode(self._run.payload, type=_Data).data


# Not a dataclass: there is one for every message, and most are never looked at.
class BatchItem(msgspec.Struct, frozen=True, eq=False):
    """One message of a batch: as the task gets it, and where it stands in the run's payload."""

    change: Change[Any]
    index: int
    messages: _Messages

    @property
    def row(self) -> str:
        """The identity of its row."""
        return self.change.key

    @property
    def payload(self) -> bytes:
        """The payload of a run of this item alone."""
        return b'{"data":[%b]}' % bytes(self.messages.raw[self.index])


def fitted(run: ClaimedRun, shape: Shape) -> ClaimedRun:
    """Return the run as the task takes it now: it may have been queued when the task took a list
    and takes one change since, or the other way round.

    Raises:
        InvalidPayload: it has several changes, and the task takes no list.
    """
    if run.items is None:
        # Its payload is one message.
        is_other = shape == "batch"
        return run._replace(payload=f'{{"data":[{run.payload}]}}', items=1) if is_other else run
    if shape == "batch":
        return run
    if run.items == 1 and shape == "change":
        return run._replace(payload=bytes(_Messages(run).raw[0]).decode(), items=None)
    problem = (
        f"the run has a list of changes ({run.items}), since its task took a list when it was "
        "queued; let the task take list[Change[...]] again until such runs are done, then retry it"
    )
    raise InvalidPayload([FieldProblem((), problem)])


def read_items(run: ClaimedRun, payload_type: PayloadType) -> list[BatchItem]:
    """Return the items of a batch run, in order."""
    messages = _Messages(run)
    changes = payload_type.changes(read_envelopes(run.payload))
    return [BatchItem(change, index, messages) for index, change in enumerate(changes)]


def item_failure(run: ClaimedRun, failure: ItemFailure, *, away: bool = False) -> Failure:
    """Judge the failure of one item; with no attempt left it is final. `away`: the task waits for
    the error."""
    waits = away or failure.retry_after_s is not None or _asks_to_wait(failure.error)
    permanent = failure.permanent or (run.max_attempts <= 1 and not waits)
    return failure_of(
        failure.error, permanent=permanent, retry_after_s=failure.retry_after_s, away=away
    )


async def bisect(
    run: ClaimedRun,
    items: list[BatchItem],
    call: Callable[[list[BatchItem]], Awaitable[Any]],
    waits_for: Callable[[Exception], bool],
) -> BatchResult:
    """Call with ever smaller halves, in order, so that only items that fail alone are left.

    Later items of the row of one that is tried again are not tried: they wait behind it. Halving
    stops at `RetryAfter`, which blames no item; what the task `waits_for` blames none either, and
    is raised: the batch is to be tried again as it is.
    """
    outputs: list[Any] = []
    failed: list[ItemFailure] = []
    waiting: set[str] = set()
    parts = _halves(items)
    while parts:
        part = [item for item in parts.pop(0) if item.row not in waiting]
        if not part:
            continue
        try:
            output, failures = _output_and_failures(await call(part))
            outputs.append(output)
        except Exception as error:
            if waits_for(error):
                raise
            if len(part) > 1 and not _asks_to_wait(error):
                parts[:0] = _halves(part)
                continue
            failures = tuple(ItemFailure(item.change, error) for item in part)
        failed += failures
        waiting |= {f.change.key for f in failures if not item_failure(run, f).final}
    return BatchResult(outputs, tuple(failed))


def _asks_to_wait(error: BaseException) -> bool:
    return isinstance(verdict_in(error), RetryAfter)


def _halves(items: list[BatchItem]) -> list[list[BatchItem]]:
    middle = len(items) // 2
    return [items[:middle], items[middle:]]


def _output_and_failures(result: Any) -> tuple[Any, tuple[ItemFailure, ...]]:
    return (
        (result.output, tuple(result.failed)) if isinstance(result, BatchResult) else (result, ())
    )


def spawn_held(run: ClaimedRun, items: Sequence[BatchItem]) -> tuple[NewRun, ...]:
    """Runs for items whose row has a failed item before them: they queue behind it."""
    return tuple(_item_run(run, item) for item in items)


def spawn_failed(
    run: ClaimedRun, items: Sequence[BatchItem], failed: Sequence[ItemFailure], wait_s: float
) -> tuple[NewRun, ...]:
    """Runs for the failed items of a batch, each with its first attempt made already.

    Behind an item that is tried again go the later ones of its row, even those that succeeded: an
    older version of a row must not be the last that is worked on.

    Raises:
        ValueError: `failed` names a change that is not among `items`.
    """
    failures = {id(failure.change): failure for failure in failed}
    if not failures.keys() <= {id(item.change) for item in items}:
        raise ValueError("BatchResult.failed names a change that is not one of the batch's own")
    made: list[NewRun] = []
    waiting: set[str] = set()
    for item in items:
        item_failed = failures.get(id(item.change))
        if item_failed is not None:
            failure = item_failure(run, item_failed)
            made.append(_failed_item_run(run, item, failure, wait_s))
            if not failure.final:
                waiting.add(item.row)
        elif item.row in waiting:
            made.append(_item_run(run, item))
    return tuple(made)


def _failed_item_run(run: ClaimedRun, item: BatchItem, failure: Failure, wait_s: float) -> NewRun:
    wait_s = max(MIN_WAIT_S, wait_s if failure.wait_s is None else failure.wait_s)
    return _item_run(
        run,
        item,
        attempt=1,
        error=failure.error,
        failed=failure.final,
        delay_s=0.0 if failure.final else wait_s,
    )


def _item_run(run: ClaimedRun, item: BatchItem, **made: Any) -> NewRun:
    position = item.change.metadata.position
    return NewRun(
        task=run.task,
        queue=run.queue,
        max_attempts=run.max_attempts,
        payload=item.payload,
        items=1,
        concurrency_key=f"row/{item.row}",
        item_key=item.row,
        source={**(run.source or {}), "position": position, "key": item.row, "batch": run.id},
        **made,
    )

"""Idempotency keys as the SDK knows them: a run that failed gives its key back; one is reset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from triggerkit.compat.trigger_dev.call import SdkCall
from triggerkit.compat.trigger_dev.given import KeyReset, body_of
from triggerkit.compat.trigger_dev.shapes import BATCH, REQUEST
from triggerkit.runs.accept.insert import FORGET_KEY
from triggerkit.runs.run import NewRun
from triggerkit.state.short_key import short_key
from triggerkit.web.api.problems import NotFound

#: How a run ended whose key makes another one. One that was canceled keeps its key.
_FAILED: Final = ["failed", "crashed", "timed_out", "expired"]

#: The runs of the same batch or request keep theirs: it may only have come again.
_FREE: Final = f"""
UPDATE triggerkit.runs r SET idempotency_key = NULL
FROM unnest(%s::text[], %s::text[]) AS k (task, key)
WHERE r.task = k.task AND r.idempotency_key = k.key AND r.status = ANY (%s)
    AND coalesce(r.source ->> '{BATCH}', r.source ->> '{REQUEST}', '') <> %s
"""  # noqa: S608 - of constants


class UnknownKey(NotFound):
    """No run of the task has this key."""


async def free_failed(sdk: SdkCall, runs: Sequence[NewRun], origin: str | None) -> None:
    """Let the keys of `runs` be used again whose run failed, and has another `origin`: the id of a
    batch or of a request."""
    if not runs:
        return
    keys: list[Any] = [[run.task for run in runs], [run.idempotency_key for run in runs]]
    async with sdk.call.state() as state:
        await state.execute(_FREE, [*keys, _FAILED, origin or "none"])


async def reset_key(sdk: SdkCall) -> dict[str, str]:
    """Let a key of a task be used again, whatever became of its run."""
    body = await body_of(sdk.request, KeyReset)
    task, key = sdk.task(body.taskIdentifier).name, sdk.path["key"]
    async with sdk.call.state() as state:
        count = (await state.execute(FORGET_KEY, [task, short_key(key)])).rowcount
    if count == 0:
        raise UnknownKey(f"no run of {task} has the idempotency key {key[:80]!r}")
    return {"id": key}

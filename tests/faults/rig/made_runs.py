"""What arrived without a push: the runs that the stream made, as deliveries."""

from __future__ import annotations

import hashlib

import orjson

from tests.faults.rig import truth
from tests.faults.rig.history import Delivery
from tests.faults.rig.receiver import item_of

#: All runs of the task, but for those of single items that the worker made of a batch.
_RUNS = """
SELECT seq, idempotency_key, payload FROM triggerkit.runs
WHERE task = %s AND source ->> 'batch' IS NULL ORDER BY seq
"""


def deliveries_of(connection: truth.Connection, task: str) -> list[Delivery]:
    """The messages in all runs of `task`, each run taken at once."""
    found = []
    for seq, key, payload in connection.execute(_RUNS, [task]):
        digest = hashlib.sha256(payload.encode()).hexdigest()
        parsed = orjson.loads(payload)
        found += [
            Delivery(
                **item_of(message),
                batch_id=key,
                batch_hash=digest,
                attempt=1,
                started_at=float(seq),
                ended_at=float(seq),
                status=200,
            )
            for message in parsed.get("data", [parsed])
        ]
    return found

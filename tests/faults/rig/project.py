"""The tasks of the project under faults: one is observed, one has an effect."""

from __future__ import annotations

from typing import Literal

#: Messages of one push; with eight partitions, this bounds what is in flight per consumer.
BATCH_SIZE = 20

_APPLYING = f"""
import os
import psycopg
from pydantic import BaseModel
from triggerkit import Change, Retry, rows, task
from triggerkit.failpoints import reach

class Item(BaseModel):
    id: int
    version: int
    body: str | None = None
    large: str | None = None

@task(on=rows("items", APPLIED_VIA), batch_size={BATCH_SIZE},
      retry=Retry(max_attempts=20, min_delay_s=0.2, max_delay_s=1))
def apply_items(batch: list[Change[Item]]) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        places = [(str(c.metadata.record_pks[0]), c.metadata.commit_lsn, c.metadata.commit_idx)
                  for c in batch]
        connection.cursor().executemany(
            "INSERT INTO effects.begun (key, lsn, idx, version) VALUES (%s, %s, %s, %s)",
            [(*place, c.record.version) for place, c in zip(places, batch)])
        connection.cursor().executemany(
            "INSERT INTO effects.items AS i (id, lsn, idx, hash, deleted) "
            "SELECT %s, %s, %s, truth.hash(ROW(%s, %s, %s, %s)::items), %s "
            "ON CONFLICT (id) DO UPDATE SET lsn = excluded.lsn, idx = excluded.idx, "
            "hash = excluded.hash, deleted = excluded.deleted "
            "WHERE (i.lsn, i.idx) < (excluded.lsn, excluded.idx)",
            [(*place, c.record.id, c.record.version, c.record.body, c.record.large,
              c.action == "delete") for place, c in zip(places, batch)])
"""

#: The task whose endpoint is the receiver itself.
_OBSERVING = f"""
@task(on=rows("items", timeout_s=3), batch_size={BATCH_SIZE})
def observe_items(batch: list[Change[Item]]) -> None:
    raise AssertionError("its endpoint is the test's receiver")
"""

#: How the other one gets its messages; directly, it is alone.
Via = Literal["webhook", "direct"]


def tasks_of(via: Via) -> str:
    """Return the module of tasks."""
    if via == "direct":
        return _APPLYING.replace("APPLIED_VIA", "via='direct'")
    return _APPLYING.replace("APPLIED_VIA", "timeout_s=3") + _OBSERVING

"""Consumers with every option, of tables of any rows, and what each of them is to get."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.faults.rig.any_rows import TABLES, Change, table_names
from triggerkit.consumers.definition import ConsumerDefinition, changes, rows

ALL: Final = table_names()
#: The tables whose deletes carry the whole row.
FULL: Final = ALL[: TABLES // 2]

#: The project: functions that want most, and that now and then raise, end their process or hang.
FUNCTIONS: Final = """
import os
import sys
import time


def keep(change):
    version = int(change.record.get("version") or 1)
    if version % 101 == 0:
        sys.exit(1)
    if version % 499 == 0:
        os._exit(1)
    if version % 4001 == 0:
        time.sleep(60)
    return change.action == "delete" or version % 7 != 0


def shape(change):
    version = int(change.record.get("version") or 1)
    if version % 103 == 0:
        raise ValueError(version)
    metadata = {
        "idempotency_key": change.metadata.idempotency_key,
        "table_name": change.metadata.table_name,
        "record_pks": change.metadata.record_pks,
        "commit_lsn": change.metadata.commit_lsn,
        "commit_idx": change.metadata.commit_idx,
    }
    record = {"version": change.record.get("version")}
    return {"action": change.action, "record": record, "metadata": metadata}
"""

_FUNCTIONS: Final = {
    "filter": "tasks:keep",
    "transform": "tasks:shape",
    "max_attempts": 1,
    "on_exhausted": "skip",
}

#: Pushed consumers by their paths, of which the first part says how the receiver behaves.
PUSHED: Final[dict[str, ConsumerDefinition]] = {
    "/good/changes": changes(*ALL, batch_size=50),
    "/good/rows": rows(*ALL, batch_size=50),
    "/good/single": changes(*ALL, batch_size=1),
    "/flaky/sorted": rows(*ALL, sort_by="version", batch_size=20, timeout_s=5),
    "/busy/grouped": changes(*FULL, group_by=["kind"], batch_size=20),
    "/refusing/skipped": changes(*ALL, batch_size=10, max_attempts=2, on_exhausted="skip"),
    "/rude/timed": changes(*ALL, batch_size=50, batch_timeout_s=0.2),
    "/slow/few": rows(*ALL, batch_size=50, concurrency=2),
    "/picky/items": changes(*ALL, batch_size=20, max_attempts=3, on_exhausted="skip"),
    "/good/changed": changes(*FULL, when_changed=["kind", "version"], batch_size=20),
    "/garbled/filtered": rows(*FULL, filters=[("kind", "==", "3")], batch_size=20),
    "/good/inserts": changes(*ALL, actions=["insert"], batch_size=20),
    "/good/functions": changes(*ALL, batch_size=20, **_FUNCTIONS),  # type: ignore[arg-type]
}

#: Pulled ones by their names.
PULLED: Final[dict[str, ConsumerDefinition]] = {
    "pulled_changes": changes(*ALL, timeout_s=3),
    # By what no row changes: of one that goes to another group the order is not promised.
    "pulled_groups": rows(*FULL, group_by=["kind"], sort_by="version", timeout_s=3),
    "pulled_functions": changes(*ALL, timeout_s=3, **_FUNCTIONS),  # type: ignore[arg-type]
}

CONSUMERS: Final = {**PUSHED, **PULLED}


def _by_functions(change: Change) -> bool:
    return change.op == "delete" or change.version % 7 != 0


#: Which of the changes of its tables a consumer wants, if not all.
_WANTED: Final[dict[str, Callable[[Change], bool]]] = {
    "/garbled/filtered": lambda change: change.name.endswith("3"),
    "/good/inserts": lambda change: change.op == "insert",
    "/good/functions": _by_functions,
    "pulled_functions": _by_functions,
}


def name_of(place: str) -> str:
    """The consumer's name, by its path or name."""
    return place.strip("/").replace("/", "_")


def wants(place: str, change: Change) -> bool:
    """Whether the consumer is to get a change."""
    followed = f"public.{change.name}" in CONSUMERS[place].tables
    return followed and (place not in _WANTED or _WANTED[place](change))


def keeps_order(place: str) -> bool:
    """Whether a row's changes come in order: what was skipped may be taken later."""
    return CONSUMERS[place].on_exhausted != "skip"

"""Filters and transforms that consumers of the tests name: a process imports them quickly."""

from __future__ import annotations

from typing import Any

from triggerkit import Change


def never_bad(change: Change[dict[str, Any]]) -> bool:
    return change.record is not None


def leaves(change: Change[dict[str, Any]]) -> bool:
    if change.record["c2"] != "the end":
        raise SystemExit(change.record["c0"])
    return True


def short(change: Change[dict[str, Any]]) -> Any:
    assert change.metadata.consumer is not None
    return {"name": change.metadata.consumer.name, "c0": change.record["c0"]}

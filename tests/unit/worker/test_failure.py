"""An error is judged and stored whatever its class does."""

from __future__ import annotations

from typing import Any

import pytest

from triggerkit import AbortRun, Retry
from triggerkit.worker.failure import failure_of


class ByAttribute(Exception):
    """As clients make them: what the API answered, by attribute."""

    def __getattr__(self, name: str) -> Any:
        return {"code": 7}[name]


class WithoutCause(Exception):
    @property
    def __cause__(self) -> BaseException | None:  # type: ignore[override]
        raise RuntimeError("no cause")


class Quitting(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


def grouped(error: Exception, depth: int) -> Exception:
    for _ in range(depth):
        error = ExceptionGroup("group", [error])
    return error


UNDESCRIBABLE = {
    "attributes": ByAttribute("no such user"),
    "cause": WithoutCause("no such user"),
    "syntax": SyntaxError("no such user", ("file", 1, "3", "text")),  # type: ignore[arg-type]
    "text": Quitting("no such user"),
    "groups": grouped(ValueError("no such user"), 2_000),
}


@pytest.mark.parametrize("error", UNDESCRIBABLE.values(), ids=UNDESCRIBABLE.keys())
def test_an_error_that_cannot_be_described_is_stored_with_what_can(error: Exception) -> None:
    def raises() -> None:
        raise error

    try:
        raises()
    except Exception as raised:
        stored = failure_of(raised, away=True).error
    assert stored.type == type(error).__name__
    assert stored.message
    assert "test_failure.py" in stored.traceback
    assert stored.type in stored.traceback


def test_a_decision_deep_in_groups_is_found() -> None:
    assert failure_of(grouped(AbortRun("gone"), 2_000)).final
    assert Retry(wait_for=(ConnectionError,)).waits_for(grouped(ConnectionError("away"), 2_000))

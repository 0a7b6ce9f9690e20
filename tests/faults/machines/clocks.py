"""Clocks of processes that are apart, by Debian's package faketime."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import ROOT

#: Where Python finds what `patched/sitecustomize.py` changes.
_PATCHED = Path(__file__).parent / "patched"


def clock_apart(apart_s: int) -> dict[str, str]:
    """The variables by which a process's clock is apart from the true one; none if it cannot be."""
    library = faketime()
    if library is None or apart_s == 0:
        return {}
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{apart_s:+d}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": f"{_PATCHED}{os.pathsep}{ROOT}",
    }


def faketime() -> Path | None:
    """The library that sets the clock of a process apart, if it is installed."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


def say_without_faketime() -> None:
    """Say that no clock is apart; fail where all that can be had is required."""
    if faketime() is None:
        missing = "the clocks are not apart: install Debian's faketime"
        if os.environ.get("TRIGGERKIT_TEST_REQUIRE") == "all":
            pytest.fail(missing)
        print(missing)

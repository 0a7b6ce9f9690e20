"""Clocks of processes that are apart, by Debian's package faketime."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import ROOT

#: Where Python finds what `patched/sitecustomize.py` changes.
_PATCHED = Path(__file__).parent / "patched"


def clock_of(file: Path) -> dict[str, str]:
    """The variables by which a process's clock is as far from the true one as `file` says, such as
    +90s, within a second of its being written; none if it cannot be."""
    library = faketime()
    if library is None:
        return {}
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
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

"""Commands whose output nobody reads to its end, or that have no streams at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.project import ROOT, clean_environment

COMMAND = [sys.executable, "-m", "triggerkit", "sql"]


def environment() -> dict[str, str]:
    return {**clean_environment(), "PYTHONPATH": str(ROOT)}


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        COMMAND,
        cwd=tmp_path,
        env=environment(),
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(theirs)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("without", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_no_stream_is_needed(tmp_path: Path, without: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$@" {without}', "sh", *COMMAND],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (done.stdout == "") == (">&-" in without.split())

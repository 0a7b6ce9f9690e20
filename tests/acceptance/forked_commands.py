"""Run commands of many cases by forks of one process, which has imported all that they need."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from tests import ROOT
from tests.acceptance.project import clean_environment


def run_cases(folder: Path, cases: Sequence[Any]) -> list[dict[str, Any]]:
    """What each command answers in the project in `folder`; a case is a dataclass, whose fields
    `odd_settings_run` reads."""
    given = orjson.dumps({"project": str(folder), "cases": [asdict(case) for case in cases]})
    ran = subprocess.run(
        [sys.executable, "-m", "tests.acceptance.odd_settings_run"],
        cwd=ROOT,
        env=clean_environment(),
        input=given,
        stdout=subprocess.PIPE,
        timeout=550,
        check=True,
    )
    answers: list[dict[str, Any]] = orjson.loads(ran.stdout)
    return answers

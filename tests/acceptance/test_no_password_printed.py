"""No part of a password is printed, however odd the URL, and no traceback for a wrong setting."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.acceptance.forked_commands import run_cases
from tests.acceptance.odd_settings import Case, cases

COUNT = 1000

#: Exit codes of commands: done, failed, usage, preflight, cannot connect, not finished.
CODES = range(6)

TASK = """
from typing import Any
from triggerkit import Change, changes, task

@task(on=changes("public.items"))
def note(change: Change[dict[str, Any]]) -> None: ...
"""


@pytest.mark.timeout(600)
def test_odd_settings_print_no_part_of_a_password_and_no_traceback(
    tmp_path: Path, database_url: str
) -> None:
    seed = int(os.environ.get("TRIGGERKIT_TEST_SEED") or random.randrange(2**32))
    print(f"TRIGGERKIT_TEST_SEED={seed}")
    made = cases(COUNT, seed, database_url)
    (tmp_path / "tasks.py").write_text(TASK)
    answers = run_cases(tmp_path, made)
    wrong = [
        (found, case, answer)
        for case, answer in zip(made, answers, strict=True)
        if (found := problem_of(case, answer["said"], answer["code"]))
    ]
    for found, case, answer in wrong[:10]:
        print(found, case, answer["said"], sep="\n", end="\n\n")
    assert not wrong, f"{len(wrong)} of {COUNT}, with seed {seed}"
    print(f"{COUNT} cases, exit codes {dict(Counter(answer['code'] for answer in answers))}")


def problem_of(case: Case, said: str, code: int) -> str | None:
    """What is wrong with the answer, None when nothing is."""
    folded = said.casefold()
    leaked = [part for part in case.canaries if part.casefold() in folded]
    if leaked:
        return f"printed {leaked}"
    if "Traceback" in said:
        return "a traceback"
    return None if code in CODES else f"exit code {code}"

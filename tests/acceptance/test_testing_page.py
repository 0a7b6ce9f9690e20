"""`docs/testing.md` is what it says: its files are written as they are, and its tests pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PAGE = (ROOT / "docs" / "testing.md").read_text()

BLOCKS = re.findall(r"^```python\n(# (\S+\.py)\n.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page_passes_its_own_tests_in_a_project_without_servers(tmp_path: Path) -> None:
    for code, name in BLOCKS:
        (tmp_path / name).write_text(code)
    written = sum(code.count("\ndef test_") for code, _ in BLOCKS)
    # No server is named, and none is found in the folder.
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{written} passed" in done.stdout


def test_every_python_block_of_the_page_is_a_file_and_the_first_test_has_ten_lines() -> None:
    assert PAGE.count("```python") == len(BLOCKS) == len({name for _, name in BLOCKS})
    [first] = [code for code, name in BLOCKS if name == "test_index_post.py"]
    assert len(first.strip().splitlines()) <= 10

"""The machine's processes, as `ps` lists them."""

from __future__ import annotations

import subprocess
from pathlib import Path


def family(pid: int) -> set[int]:
    """`pid` and all its descendants that run now."""
    children: dict[int, list[int]] = {}
    for process, parent in _parents().items():
        children.setdefault(parent, []).append(process)
    found = {pid}
    unseen = [pid]
    while unseen:
        new = children.get(unseen.pop(), [])
        found.update(new)
        unseen.extend(new)
    return found


def parent_of(pid: int) -> int | None:
    """Whose child `pid` is, None when it has ended."""
    return _parents().get(pid)


def running(pids: set[int]) -> set[int]:
    """Those of `pids` that have not ended; one that only waits to be collected has."""
    return pids & _parents().keys()


def mentioning(folder: Path) -> set[str]:
    """The command lines that name `folder`, such as those of the servers whose data are there."""
    listed = _ps("args=").splitlines()
    return {line for line in listed if str(folder) in line}


def _parents() -> dict[int, int]:
    rows = (line.split() for line in _ps("pid=,ppid=,stat=").splitlines())
    return {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}


def _ps(columns: str) -> str:
    return subprocess.run(
        ["ps", "-A", "-ww", "-o", columns], capture_output=True, text=True, check=True
    ).stdout

"""The processor time that processes used: what a busy machine does not change as it does the
clock."""

from __future__ import annotations

import os
from pathlib import Path

from bench.project import Connection, one

_TICKS = os.sysconf("SC_CLK_TCK")

#: Of what follows the name in `/proc/PID/stat`: the parent; the time of the process, as a user and
#: in the kernel; and that of its children which have ended.
_PARENT, _OWN, _ENDED = 1, (11, 12), (13, 14)


def process_s(pid: int) -> float:
    """Return the seconds of one process, and of its children that have ended."""
    fields = _fields(pid)
    return sum(int(fields[at]) for at in (*_OWN, *_ENDED)) / _TICKS


def tree_s(pid: int) -> float:
    """Return the seconds of a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                children.setdefault(int(_fields(int(folder.name))[_PARENT]), []).append(
                    int(folder.name)
                )
            except (FileNotFoundError, ProcessLookupError):
                continue
    seconds, left = 0.0, [pid]
    while left:
        one_of_them = left.pop()
        left += children.get(one_of_them, [])
        try:
            seconds += process_s(one_of_them)
        except (FileNotFoundError, ProcessLookupError):
            # What has ended since counts with its parent.
            continue
    return seconds


def server_s(connection: Connection) -> float:
    """Return the seconds of the Postgres of `connection`, without this session."""
    pid = int(one(connection, "SELECT pg_backend_pid()"))
    return tree_s(int(_fields(pid)[_PARENT])) - process_s(pid)


def _fields(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()

"""Tell whether a process of this machine has ended: then nobody waits for its lease to be over."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def home() -> str | None:
    """Names this boot of this machine and its space of process ids; None where there is no /proc.

    Two processes with one home see each other's ids: neither another machine nor a container of
    the same host name has it.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return None


def started(pid: int) -> int | None:
    """Return the start of a process, in the kernel's ticks since boot; None when it has ended.

    Source: proc(5), /proc/pid/stat, fields 3 and 22.
    """
    with suppress(OSError, ValueError, IndexError):
        # The second field, the name, is in parentheses and may have any character.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    return None

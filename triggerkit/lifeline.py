"""Ends our own child processes when the process that started them is gone, even by SIGKILL.

The parent holds the write end of a pipe and gives the read end to its children; the system closes
the write end when the parent ends, however that happens, and every child reads the end of file.
"""

from __future__ import annotations

import os
import stat
import threading
from dataclasses import dataclass, field
from typing import Final

#: The variable that names the read end to the child, as `fd:inode`.
VARIABLE: Final = "TRIGGERKIT_LIFELINE"
#: The exit code of a child whose parent is gone.
PARENT_GONE: Final = 70


@dataclass(slots=True)
class Lifeline:
    """The parent's side. Children live until it is closed or its process ends.

    A child made by fork without exec inherits the write end and keeps the others alive until it
    calls `close_write`.
    """

    #: The descriptor to name in `pass_fds`.
    read_fd: int
    _write_fd: int = field(repr=False)

    def environment(self) -> dict[str, str]:
        """Return what to add to the environment of a child that calls `watch()`."""
        return {VARIABLE: f"{self.read_fd}:{os.fstat(self.read_fd).st_ino}"}

    def close_read(self) -> None:
        """Close the parent's copy of the read end, once no more children are started."""
        if self.read_fd >= 0:
            os.close(self.read_fd)
            self.read_fd = -1

    def close(self) -> None:
        """Let the children end; may be called more than once."""
        self.close_read()
        self.close_write()

    def close_write(self) -> None:
        """Close the write end: in a forked child, which must not keep itself alive."""
        if self._write_fd >= 0:
            os.close(self._write_fd)
            self._write_fd = -1


def hold() -> Lifeline:
    """Make a lifeline; neither end is inherited by processes that are not given it."""
    read_fd, write_fd = os.pipe()
    return Lifeline(read_fd, write_fd)


def watch() -> bool:
    """End this process by `os._exit(70)` as soon as the parent is gone.

    Returns whether there is a lifeline to watch: there is none when the variable is not set, or
    when it was inherited from further up and the descriptor means something else here. After a
    fork the child has to call this again, since threads do not survive a fork.
    """
    fd = _inherited(os.environ.get(VARIABLE, ""))
    if fd is None:
        return False
    os.set_inheritable(fd, False)
    threading.Thread(target=_exit_at_end, args=(fd,), name="lifeline", daemon=True).start()
    return True


def _inherited(value: str) -> int | None:
    fd, _, inode = value.partition(":")
    if not (fd.isdecimal() and inode.isdecimal()):
        return None
    try:
        status = os.fstat(int(fd))
    except OSError:
        return None
    same = stat.S_ISFIFO(status.st_mode) and status.st_ino == int(inode)
    return int(fd) if same else None


def _exit_at_end(fd: int) -> None:
    while os.read(fd, 1):
        pass
    os._exit(PARENT_GONE)

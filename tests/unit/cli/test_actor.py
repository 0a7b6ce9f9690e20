"""Who runs a command, also where that user has no name."""

from __future__ import annotations

import os

import pytest

from triggerkit.cli.actor import actor

#: A user of a container whose number nobody named.
NOBODY = 54321


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_a_user_without_a_name_is_a_number() -> None:
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(NOBODY)
            for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
                os.environ.pop(name, None)
            os.write(theirs, actor().encode())
        finally:
            os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    assert os.read(ours, 100) == f"cli:{NOBODY}".encode()
    os.close(ours)

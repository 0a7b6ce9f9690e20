"""Name who runs a command, for the audit."""

from __future__ import annotations

import getpass
import os


def actor() -> str:
    """Return the user's name; in a container a user may have none, only a number."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"cli:{os.getuid()}"

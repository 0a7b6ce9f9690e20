"""Named places where a test can have a process killed, to show that nothing is lost there.

Off unless `arm` is called at a process's start; then a point costs one comparison.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, get_args

#: The variable that arms a point: `<point>=<file>`. The file is made when the point fires, and a
#: point whose file exists does not fire again, so that the restarted process passes it.
VARIABLE: Final = "TRIGGERKIT_FAIL_POINT"

Point = Literal[
    "frame-received",
    "log-written",
    "log-committed",
    "lsn-before-confirm",
    "lsn-after-confirm",
    "post-before",
    "tunnel-asked",
    "tunnel-taken",
    "tunnel-answered",
    "post-after",
    "delivered-before-cursor",
    "produced-before-cursor",
    "chunk-read",
    "chunk-marked",
    "chunk-stored",
    "run-inserted",
    "run-pushed",
    "run-popped",
    "run-claimed",
    "effect-done",
    "completion-written",
]

#: All points, in the order in which a row passes them.
POINTS: Final[tuple[Point, ...]] = get_args(Point)

_armed: tuple[str, Path] | None = None


def arm(environment: Mapping[str, str]) -> None:
    """Arm the point that `environment` names, if any."""
    global _armed
    point, _, fired = environment.get(VARIABLE, "").partition("=")
    _armed = (point, Path(fired)) if point in POINTS else None


def reach(point: Point) -> None:
    """Pass a point: kills the process by SIGKILL when it is armed and has not fired yet."""
    if _armed is not None and _armed[0] == point:
        _fire(_armed[1])


def _fire(fired: Path) -> None:
    try:
        os.close(os.open(fired, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)

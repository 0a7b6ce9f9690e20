"""The states of parked messages, and which of them keep later messages of their keys waiting."""

from __future__ import annotations

from typing import Literal, get_args

from triggerkit.log.entry import ALL_PARTITIONS, PARTITIONS

#: failing: tried again at `due_at`; waiting: behind an earlier message of its key; blocked: given
#: up, and its key waits for somebody; dead: given up, and its key went on without it; superseded:
#: its table was truncated since.
ParkedState = Literal["failing", "waiting", "blocked", "dead", "superseded"]

PARKED_STATES: tuple[ParkedState, ...] = get_args(ParkedState)

#: How the message of a truncate begins.
TRUNCATE = '{"record":null,"changes":null,"action":"truncate"'

#: A condition on a parked message `p` that is always true. With it, positions are found by the
#: index, of which the partition is a part.
IN_ANY_PARTITION = "p.partition = ANY ('{{{}}}'::smallint[])".format(
    ",".join(map(str, range(ALL_PARTITIONS, PARTITIONS)))
)

#: Of those that keep later messages of their key waiting.
IN_THE_WAY = "('failing', 'waiting', 'blocked')"

"""What people can have done to all that fit a filter, in the words of the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from triggerkit.runs.admin.control import UNFINISHED
from triggerkit.runs.run import Status
from triggerkit.tasks.replay import FINISHED
from triggerkit.web.bulk.store import Action


@dataclass(frozen=True, slots=True)
class Verb:
    """What can be done to many: `statuses` are those of the runs that it is done to."""

    name: str
    action: Action
    label: str
    does: str
    about: str
    statuses: tuple[Status, ...] = ()

    @property
    def is_of_runs(self) -> bool:
        """Return whether it is done to runs, else to parked messages."""
        return bool(self.statuses)

    def statuses_of(self, given: Mapping[str, str]) -> Sequence[str]:
        """Return those of a filter's statuses that it can be done to; none of a wrong one."""
        wanted = given["status"].split(",") if "status" in given else [*self.statuses]
        if not set(wanted) <= set(get_args(Status)):
            return []
        return [status for status in wanted if status in self.statuses]


VERBS: Final[Mapping[str, Verb]] = {
    verb.name: verb
    for verb in (
        Verb(
            "cancel-runs", "cancel runs", "Cancel", "cancels",
            "Those that wait are canceled at once, those that execute are stopped by their "
            "workers, within a second or so.",
            UNFINISHED,
        ),
        Verb(
            "retry-runs", "replay runs", "Replay failed", "replays",
            "Each becomes a new run with the same payload. The old ones stay as they are.",
            ("failed", "crashed", "timed_out"),
        ),
        Verb(
            "replay-runs", "replay runs", "Replay all", "replays",
            "Each becomes a new run with the same payload, those that completed too: their tasks "
            "run again. The old ones stay as they are.",
            FINISHED,
        ),
        Verb(
            "retry-messages", "retry messages", "Retry", "tries again",
            "They are sent at once, and their attempts count anew. What waits behind others "
            "follows by itself.",
        ),
        Verb(
            "discard-messages", "discard messages", "Discard", "discards",
            "They are never delivered then. What waits behind them is tried.",
        ),
    )
}  # fmt: skip


def verbs_of_runs(given: Mapping[str, str]) -> Sequence[Verb]:
    """Return what can be done to runs that a filter's qualifiers leave."""
    return [verb for verb in VERBS.values() if verb.is_of_runs and verb.statuses_of(given)]


def verbs_of_messages() -> Sequence[Verb]:
    """Return what can be done to parked messages."""
    return [verb for verb in VERBS.values() if not verb.is_of_runs]

"""Hold what is known of a row's way against the effect itself, and choose what is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from triggerkit.why.answer import DONE, Cause

#: Causes by consumer; under None those of the whole table.
Causes: TypeAlias = dict[str | None, Cause]


class Effect(NamedTuple):
    """How a row stands to its effect by a task: a problem of `verify`, in step, or unknown."""

    task: str
    how: str

    def conclude(self, cause: Cause) -> Cause:
        """Return the cause, held against the effect itself."""
        fix = f"triggerkit verify {self.task} --fix"
        if self.how == "empty":
            detail = f"{self.task} makes no effect of it: the row has nothing to make one of"
            return Cause("no_text", detail)
        if self.how == "in step":
            detail = f"its effect by {self.task} is there, and up to date; {cause.conclusion}"
            return Cause("up_to_date", detail)
        if cause.code not in DONE or self.how == "unknown":
            return cause
        if self.how == "orphaned":
            return Cause("effect_stale", f"{self.task} left an effect, and the row is gone", fix)
        detail = f"its effect by {self.task} is {self.how}, though: {cause.conclusion}"
        return Cause("effect_missing" if self.how == "missing" else "effect_stale", detail, fix)


def conclusion(causes: Causes, effects: Mapping[str, Effect]) -> Cause:
    """Return what is told of several causes: what needs somebody goes before what is well."""
    if (of_table := causes.get(None)) is not None:
        known = [effect.conclude(of_table) for effect in effects.values()]
        return max(known, key=lambda cause: -cause.rank) if known else of_table
    found = [effects[name].conclude(cause) if name in effects else cause
             for name, cause in causes.items() if name is not None]  # fmt: skip
    return min(found, key=lambda cause: cause.rank)

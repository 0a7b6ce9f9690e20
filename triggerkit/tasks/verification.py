"""Declare a task's effects, so that `triggerkit verify` can look for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Literal, NamedTuple, TypeAlias

import psycopg

#: A row without its effect, an effect of an older state of its row, an effect without a row.
Problem = Literal["missing", "stale", "orphaned"]


class Mismatch(NamedTuple):
    """A row that is out of step with its effect.

    `key` has the values of the primary key of the task's table, in order; of an orphaned effect
    those that its row had.
    """

    key: tuple[object, ...]
    problem: Problem


#: What finds the mismatches of a task, and only them. Either a query on the source database, which
#: answers the columns of the primary key, in order, and the problem. Or an async generator function
#: that yields each `Mismatch`; it gets a connection to the source database, in one read-only
#: transaction that sees the state of its start.
Verify: TypeAlias = str | Callable[[psycopg.AsyncConnection], AsyncIterator[Mismatch]]

"""The decoded change of a row and the transaction it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from triggerkit.lsn import Lsn

Action = Literal["insert", "update", "delete", "read", "truncate"]

#: A row's values by column name, each ready for JSON (see `triggerkit.values`).
Record = dict[str, object]

#: Primary-key values in key order, as the text Postgres prints; empty for truncate.
Key = tuple[str, ...]


class RowChange(NamedTuple):
    """One row's change, as the log stores it.

    `changes` holds the old values of the changed columns of an update: empty when the WAL does not
    carry them, None when no column changed. Of an insert that follows from an update of a row's key
    it is the key that the row had; None for every other action. `unchanged` names TOASTed
    columns whose value is neither in the WAL nor known otherwise; they are absent from `record`.
    `fault` says why there is no record though there should be one; the key is then known as far as
    it could be read. `is_let_in` is set for an insert that an update became, since the row passes
    the publication's row filter only now: what it leaves out is of a row that nobody was told of.
    """

    schema: str
    table: str
    action: Action
    key: Key
    record: Record | None
    changes: Record | Key | None = None
    unchanged: tuple[str, ...] = ()
    fault: str | None = None
    is_let_in: bool = False


@dataclass(frozen=True, slots=True)
class Transaction:
    """The facts of a transaction: those of its Begin message, and its own annotation.

    `commit_lsn` is the LSN of its commit record: with the index of a change in the transaction it
    identifies the change. `commit_at` is ISO 8601, UTC, with microseconds. `annotations` is a JSON
    object of the application's own.
    """

    commit_lsn: Lsn
    commit_at: str
    xid: int
    annotations: str | None = None

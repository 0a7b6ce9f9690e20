"""Messages, as consumers get them: one change, its JSON and its idempotency key.

The JSON has Sequin's shape, so that either side of the webhook can be a real Sequin.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar, final

import orjson
from msgspec import Struct

from triggerkit.change import Action
from triggerkit.configuration.table_name import table_text

RecordT = TypeVar("RecordT")


@final
class Unchanged:
    """The type of `UNCHANGED`."""

    def __repr__(self) -> str:
        return "UNCHANGED"

    def __bool__(self) -> bool:
        return False


#: Stands in a record for a large (TOASTed) value that did not change and that the WAL does not
#: carry. It is never None: the column has a value, only this message does not know it.
UNCHANGED: Final = Unchanged()


class Ref(Struct, frozen=True, gc=False):
    """The id and name of a database or consumer. `epoch` counts a database's slots, from 1."""

    id: str | int | None = None
    name: str | None = None
    epoch: int | None = None


class Metadata(Struct, frozen=True, gc=False):
    """The origin of a change. Only the table is certain when the sender is not triggerkit.

    `xid` is the full 64-bit id of the transaction, as `pg_visible_in_snapshot` takes it; None for
    rows read by a backfill. `unchanged` names the record's columns that are `UNCHANGED`. `group` is
    what the message is ordered with, when that is not its row.
    """

    table_schema: str
    table_name: str
    record_pks: tuple[str | int, ...] = ()
    commit_timestamp: datetime | None = None
    commit_lsn: int | None = None
    commit_idx: int | None = None
    idempotency_key: str | None = None
    position: int | None = None
    xid: int | None = None
    unchanged: tuple[str, ...] = ()
    group: str | None = None
    database: Ref | None = None
    consumer: Ref | None = None
    transaction_annotations: Any = None


class Envelope(Struct, frozen=True, gc=False):
    """One message as it arrives, its record not yet validated against the task's type."""

    record: dict[str, Any] | None
    action: Action
    metadata: Metadata
    changes: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Change(Generic[RecordT]):
    """One change of one row, as a task gets it.

    `record` is the row after the change (before it, for a delete: only the key's columns are then
    certain; None for a truncate). `changes` holds the old values of the changed columns of an
    update, and is None for other actions and empty when the WAL does not carry them.
    """

    record: RecordT
    changes: dict[str, Any] | None
    action: Action
    metadata: Metadata

    @property
    def key(self) -> str:
        """The row's identity as text: `schema.table:["pk", …]`."""
        return row_key(
            self.metadata.table_schema, self.metadata.table_name, self.metadata.record_pks
        )


def row_key(schema: str, table: str, pks: Iterable[object]) -> str:
    """Return the identity of a row as text, equal for all of its messages."""
    return row_text(schema, table, orjson.dumps([str(pk) for pk in pks]).decode())


def row_text(schema: str, table: str, key: str) -> str:
    """Return `row_key` of a row whose key is a JSON array already."""
    return f"{table_text(schema, table)}:{key}"


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """One change of a batch that its task could not process; it becomes a run of its own row.

    `retry_after_s` overrides the back-off; `permanent` says that no further attempt can help.
    """

    change: Change[Any]
    error: BaseException
    retry_after_s: float | None = None
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result that a batch task may return: an output, and the changes that failed alone."""

    output: Any = None
    failed: Sequence[ItemFailure] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "failed", tuple(self.failed))

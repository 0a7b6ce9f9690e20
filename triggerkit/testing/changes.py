"""Changes made up for tests, with the metadata that real ones carry."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from triggerkit.change import Action
from triggerkit.configuration.table_name import TableName
from triggerkit.errors import ConfigurationError
from triggerkit.message import UNCHANGED, Change, Metadata, Ref
from triggerkit.tasks.payload.encode import ready_for_json

RecordT = TypeVar("RecordT")

#: Made-up changes follow each other as those of one database do.
_numbers = itertools.count(1)

_FIRST_LSN = 0x1000000
_FIRST_XID = 1000


def fake_change(
    record: RecordT,
    *,
    old: Any = None,
    changes: Mapping[str, Any] | None = None,
    action: Action | None = None,
    table: str = "public.posts",
    key: object = None,
    **metadata: Any,
) -> Change[RecordT]:
    """Return a change of one row as a task gets it. Each is later than the one made before it.

    `record` is the row: a model, dataclass or dict; None for a truncate. With `old`, the whole row
    before, or `changes`, the old values of the columns that changed, it is an update; else an
    insert, unless `action` says so. `key` is the primary key, a tuple if it has several columns; by
    default the record's `id`. `metadata` replaces fields of `Metadata`.

    Raises:
        ConfigurationError: the key is not known, or the table has no schema.
    """
    if action is None:
        action = "insert" if old is None and changes is None else "update"
    row = {} if record is None else _columns(record)
    if old is not None:
        changes = {k: v for k, v in _columns(old).items() if k not in row or row[k] != v}
    before = None if action != "update" else ready_for_json(dict(changes or {}))
    values = {
        **_metadata(action, table),
        "record_pks": () if record is None else _key(row, key),
        "unchanged": tuple(name for name, value in _values(record) if value is UNCHANGED),
        **metadata,
    }
    return Change(record, before, action, Metadata(**values))


def fake_message(record: Any, **values: Any) -> dict[str, Any]:
    """Do the same change as the JSON that a webhook route gets; the parameters of `fake_change`."""
    message: dict[str, Any] = ready_for_json(fake_change(record, **values))
    return message


def _metadata(action: Action, table: str) -> dict[str, Any]:
    if "." not in table:
        raise ConfigurationError(f"table={table!r} needs its schema: 'public.{table}'")
    schema, name = TableName.parse(table)
    number = next(_numbers)
    return {
        "table_schema": schema,
        "table_name": name,
        "commit_timestamp": datetime.now(UTC),
        "commit_lsn": _FIRST_LSN + number * 0x100,
        "commit_idx": 0,
        "idempotency_key": f"test.0.{number}",
        "position": number,
        "xid": None if action == "read" else _FIRST_XID + number,
        "database": Ref(id="1", name="test", epoch=1),
        "consumer": Ref(id="1", name="test"),
    }


def _key(row: Mapping[str, Any], key: object) -> tuple[str, ...]:
    if key is None:
        key = row.get("id")
        if key is None:
            raise ConfigurationError("the record has no id: give its primary key with key=")
    return tuple(map(str, key if isinstance(key, tuple | list) else (key,)))


def _columns(record: Any) -> dict[str, Any]:
    """Return the columns whose values are known, as JSON."""
    known = {name: value for name, value in _values(record) if value is not UNCHANGED}
    columns: dict[str, Any] = ready_for_json(known)
    return columns


def _values(record: Any) -> list[tuple[str, Any]]:
    if record is None:
        return []
    return list((record if isinstance(record, Mapping) else vars(record)).items())

"""What a parked message is, kept beside its body."""

from __future__ import annotations

from typing import NamedTuple, Self

import orjson

from triggerkit.log.entry import Entry
from triggerkit.log.json_object import split_object

#: The columns of `triggerkit.parked` for the fields of `Origin`, in their order.
COLUMNS = "idempotency_key, schema_name, table_name, row_key"


class Origin(NamedTuple):
    """The identity and the row of a message. `row_key` is a JSON array, as in the log."""

    idempotency_key: str
    schema: str
    table: str
    row_key: str

    @classmethod
    def of(cls, entry: Entry, idempotency_key: str) -> Self:
        """Return the origin of the message of `entry`."""
        return cls(idempotency_key, entry.schema, entry.table, entry.key)

    @classmethod
    def in_body(cls, body: bytes) -> Self:
        """Return the origin of a message that was parked when it was not kept beside the body."""
        metadata = split_object(split_object(body)["metadata"])
        names = ("idempotency_key", "table_schema", "table_name")
        own, schema, table = (orjson.loads(metadata[name]) for name in names)
        return cls(own, schema, table, metadata["record_pks"].decode())

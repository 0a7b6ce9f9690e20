"""A log entry as the JSON message a consumer gets, assembled from bytes that are JSON already."""

from __future__ import annotations

import orjson

from triggerkit.consumers.consumer import Consumer
from triggerkit.log.entry import Entry


def idempotency_key(consumer: Consumer, entry: Entry) -> str:
    """Unique per consumer and replay: where the change stands in the history of its database."""
    head = f"{consumer.id}.{consumer.replay_epoch}"
    if entry.backfill_id is not None:
        return f"{head}.b{entry.backfill_id}.{entry.schema}.{entry.table}:{entry.key}"
    system = consumer.system_identifier
    epoch = consumer.database_epoch
    return f"{head}.{system}.{epoch}.{entry.commit_lsn}.{entry.commit_idx}"


class Renderer:
    """Renders entries for one consumer; what is the same for many of them is encoded once."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._head = (
            f"{consumer.id}.{consumer.replay_epoch}.{consumer.system_identifier}."
            f"{consumer.database_epoch}"
        )
        self._tables: dict[tuple[str, str], str] = {}
        database = {
            "id": str(consumer.database_id),
            "name": consumer.database_name,
            "epoch": consumer.database_epoch,
        }
        refs = (
            orjson.dumps(database),
            orjson.dumps({"id": str(consumer.id), "name": consumer.name}),
        )
        self._constant = b',"database":%b,"consumer":%b,"transaction_annotations":' % refs
        self._without_annotations = b"%bnull}}" % self._constant

    def message(self, entry: Entry) -> bytes:
        """The message of `entry` in the shape of `triggerkit.message.Envelope`."""
        (
            position, _, schema, table, key, action, commit_lsn, commit_idx, commit_at, xid,
            record, changes, unchanged, _, backfill_id, _, annotations,
        ) = entry  # fmt: skip
        tables = self._tables.get((schema, table)) or self._table(schema, table)
        if backfill_id is None:
            identity = f'"{self._head}.{commit_lsn}.{commit_idx}"'
        else:
            identity = orjson.dumps(idempotency_key(self._consumer, entry)).decode()
        metadata = (
            f'{tables},"record_pks":{key},"commit_timestamp":"{commit_at}","commit_lsn":{commit_lsn},'
            f'"commit_idx":{commit_idx},"idempotency_key":{identity},"position":{position},'
            f'"xid":{"null" if xid is None else xid}'
        )
        if self._consumer.definition.group_by is not None:
            group = orjson.dumps(self._consumer.key_of(entry)).decode()
            metadata += f',"group":{group}'
        if unchanged:
            metadata += f',"unchanged":{orjson.dumps(unchanged).decode()}'
        tail = self._without_annotations
        if annotations is not None:
            tail = b"%b%b}}" % (self._constant, annotations.encode())
        return b'{"record":%b,"changes":%b,"action":"%b","metadata":{%b%b' % (
            record or b"null",
            changes or b"null",
            action.encode(),
            metadata.encode(),
            tail,
        )

    def _table(self, schema: str, table: str) -> str:
        names = orjson.dumps({"table_schema": schema, "table_name": table}).decode()[1:-1]
        self._tables[schema, table] = names
        return names


def batch_body(messages: list[bytes], *, single: bool) -> bytes:
    """The body of a push: one message alone, or an array of them under `data`."""
    if single:
        return messages[0]
    return b'{"data":[%b]}' % b",".join(messages)

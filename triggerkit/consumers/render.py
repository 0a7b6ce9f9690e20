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
    """Renders entries for one consumer; what never changes is encoded once."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        database = {
            "id": str(consumer.database_id),
            "name": consumer.database_name,
            "epoch": consumer.database_epoch,
        }
        self._constant = b'"database":%b,"consumer":%b,"transaction_annotations":null}}' % (
            orjson.dumps(database),
            orjson.dumps({"id": str(consumer.id), "name": consumer.name}),
        )

    def message(self, entry: Entry) -> bytes:
        """The message of `entry` in the shape of `triggerkit.message.Envelope`."""
        metadata = {
            "table_schema": entry.schema,
            "table_name": entry.table,
            "record_pks": orjson.Fragment(entry.key),
            "commit_timestamp": entry.commit_at,
            "commit_lsn": entry.commit_lsn,
            "commit_idx": entry.commit_idx,
            "idempotency_key": idempotency_key(self._consumer, entry),
            "position": entry.position,
            "xid": entry.xid,
        }
        if entry.unchanged:
            metadata["unchanged"] = entry.unchanged
        return b'{"record":%b,"changes":%b,"action":"%b","metadata":%b,%b' % (
            entry.record or b"null",
            entry.changes or b"null",
            entry.action.encode(),
            orjson.dumps(metadata)[:-1],
            self._constant,
        )


def batch_body(messages: list[bytes], *, single: bool) -> bytes:
    """The body of a push: one message alone, or an array of them under `data`."""
    if single:
        return messages[0]
    return b'{"data":[%b]}' % b",".join(messages)

"""A log entry as the JSON message a consumer gets, assembled from bytes that are JSON already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson

from triggerkit.configuration.table_name import table_text
from triggerkit.consumers.consumer import Consumer
from triggerkit.consumers.shared_parts import Parts, kind_of, parts_of
from triggerkit.log.entry import Entry
from triggerkit.log.reader import entry_of_row
from triggerkit.timestamps import iso_utc_of


class IdempotencyKeys:
    """The idempotency keys of one consumer's messages, unique per consumer and replay."""

    __slots__ = ("_consumer", "_replay", "_slot_position", "history")

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._slot_position = consumer.slot_position
        self._replay = f"{consumer.id}.{consumer.replay_epoch}"
        #: How the keys of changes by the present slot begin, plain ASCII.
        self.history = f"{self._replay}.{consumer.system_identifier}.{consumer.database_epoch}"

    def of(self, entry: Entry) -> str:
        """Return the key of `entry`."""
        if entry.backfill_id is None:
            if entry.position < self._slot_position:
                return IdempotencyKeys(self._consumer.at(entry.position)).of(entry)
            return self.of_change(entry.commit_lsn, entry.commit_idx)
        return self.of_row(entry.backfill_id, entry.schema, entry.table, entry.key)

    def of_change(self, commit_lsn: int, commit_idx: int) -> str:
        """Return the key of a change by the present slot: where it stands in its database's
        history, plain ASCII."""
        return f"{self.history}.{commit_lsn}.{commit_idx}"

    def of_row(self, backfill_id: int, schema: str, table: str, key: str) -> str:
        """Return the key of a row that a backfill read."""
        return f"{self._replay}.b{backfill_id}.{table_text(schema, table)}:{key}"


class Renderer:
    """Renders entries for one consumer; what is the same for many of them is encoded once."""

    def __init__(self, consumer: Consumer, parts_of: Callable[[Entry], Parts] = parts_of) -> None:
        """`parts_of` gives what an entry's messages have in common for all consumers."""
        self._consumer = consumer
        self._parts_of = parts_of
        self._keys = IdempotencyKeys(consumer)
        self._history = self._keys.history.encode()
        self._slot_position = consumer.slot_position
        self._past: dict[int, Renderer] = {}
        self._is_plain = consumer.definition.group_by is None
        database = {
            "id": str(consumer.database_id),
            "name": consumer.database_name,
            "epoch": consumer.database_epoch,
        }
        if consumer.database_host is not None:
            database |= {"database": consumer.database_name, "hostname": consumer.database_host}
        named: dict[str, Any] = {"id": str(consumer.id), "name": consumer.name}
        if consumer.definition.annotations is not None:
            named["annotations"] = consumer.definition.annotations
        parts = tuple(map(orjson.dumps, (consumer.database_name, database, named)))
        self.constant = (
            b',"database_name":%b,"database":%b,"consumer":%b,"transaction_annotations":' % parts
        )
        self._without_annotations = b"%bnull}}" % self.constant

    def message(self, entry: Entry) -> bytes:
        """Return the message of `entry` in the shape of `triggerkit.message.Envelope`."""
        if entry.position < self._slot_position:
            return self._of_slot(entry.position).message(entry)
        head, middle, unchanged = self._parts_of(entry)
        if not self._is_plain or entry.backfill_id is not None:
            head, middle = self._own_parts(entry, head, middle)
        elif not unchanged and entry.annotations is None:
            return b"%b%b%b%b" % (head, self._history, middle, self._without_annotations)
        else:
            head = head + self._history
        tail = self._without_annotations
        if entry.annotations is not None:
            tail = b"%b%b}}" % (self.constant, entry.annotations.encode())
        return b"%b%b%b%b" % (head, middle, unchanged, tail)

    def _own_parts(self, entry: Entry, head: bytes, middle: bytes) -> tuple[bytes, bytes]:
        """Return the parts with the key of a row that a backfill read, and with the group."""
        identity = self._history
        if entry.backfill_id is not None:
            of_row = self._keys.of_row(entry.backfill_id, entry.schema, entry.table, entry.key)
            identity = orjson.dumps(of_row)[1:-1]
        if not self._is_plain:
            middle += b',"group":%b' % orjson.dumps(self._consumer.key_of(entry))
        return head + identity, middle

    def _of_slot(self, position: int) -> Renderer:
        """Return what renders the entries of the slot before that captured `position`."""
        consumer = self._consumer.at(position)
        known = self._past.get(consumer.database_epoch)
        if known is None:
            known = self._past[consumer.database_epoch] = Renderer(consumer, self._parts_of)
        return known


class RowRenderer:
    """Renders rows as they are stored for a consumer to which a change's table and action alone say
    whether it is wanted, each with its `ack_id`, without an `Entry` for each.

    Guarantee: but for the `ack_id`, the bytes are those of `Renderer.message`.
    """

    def __init__(self, consumer: Consumer, renderer: Renderer) -> None:
        """`consumer` has neither filters nor functions nor `group_by` nor `when_changed`."""
        self._consumer = consumer
        self._keys = IdempotencyKeys(consumer)
        self._constant = renderer.constant.decode()
        self._kinds: dict[tuple[str, str, str], tuple[bool, str]] = {}

    def render(
        self, rows: Iterator[Any], ack_head: str, messages: list[bytes], room: int, room_bytes: int
    ) -> tuple[int | None, Any]:
        """Append the messages of `rows` to `messages`, until there is no room for more.

        `rows` are of `STORED`, with three more columns. Returns the position of the last row taken,
        None without any; and the row it ended at if that has a fault, is of an earlier slot, or a
        truncate: it is not taken.
        """
        consumer_id, key_of_change = self._consumer.id, self._keys.of_change
        slot_position = self._consumer.slot_position
        plain_tail = f"{self._constant}null}}}}"
        seen_schema = seen_table = seen_action = seen_lsn = seen_at = last = None
        is_wanted, kind, transaction = False, "", ""
        for row in rows:
            (
                position, _, schema, table, key, action, lsn, index, at, xid, record, changes,
                unchanged, only_for, backfill_id, fault, annotations, _, _, _,
            ) = row  # fmt: skip
            if fault is not None or position < slot_position:
                return last, row
            if action != seen_action or table != seen_table or schema != seen_schema:
                if action == "truncate":
                    return last, row
                seen_schema, seen_table, seen_action = schema, table, action
                is_wanted, kind = self._kind(schema, table, action, row)
            last = position
            if not (is_wanted if only_for is None else only_for == consumer_id):
                continue
            if lsn != seen_lsn or at != seen_at:
                seen_lsn, seen_at = lsn, at
                transaction = (
                    f',"commit_timestamp":"{iso_utc_of(at)}","commit_lsn":{lsn},"commit_idx":'
                )
            if backfill_id is None:
                identity = f'"{key_of_change(lsn, index)}"'
            else:
                identity = _text(self._keys.of_row(backfill_id, schema, table, key))
            told = "null" if action != "update" else changes or ("{}" if record else "null")
            tail = plain_tail
            if unchanged or annotations is not None:
                names = f',"unchanged":{orjson.dumps(unchanged).decode()}' if unchanged else ""
                tail = f"{names}{self._constant}{annotations or 'null'}}}}}"
            message = (
                f'{{"ack_id":"{ack_head}{position}","record":{record or "null"},'
                f'"changes":{told}{kind}{key}{transaction}{index},'
                f'"idempotency_key":{identity},"position":{position},'
                f'"xid":{"null" if xid is None else xid}{tail}'
            ).encode()
            messages.append(message)
            room -= 1
            room_bytes -= len(message)
            if room <= 0 or room_bytes < 0:
                break
        return last, None

    def _kind(self, schema: str, table: str, action: str, row: Any) -> tuple[bool, str]:
        """Return whether changes like this one are wanted, and what their messages have in
        common."""
        known = self._kinds.get((schema, table, action))
        if known is None:
            entry = entry_of_row(row)._replace(consumer_id=None)
            kind = kind_of(schema, table, action)
            known = self._kinds[schema, table, action] = self._consumer.wants(entry), kind
        return known


def _text(value: str) -> str:
    return orjson.dumps(value).decode()


def batch_body(messages: list[bytes], *, single: bool) -> bytes:
    """Return the body of a push: one message alone, or an array of them under `data`.

    Raises:
        ValueError: `single`, and there is not exactly one.
    """
    if single:
        (message,) = messages
        return message
    return b'{"data":[%b]}' % b",".join(messages)

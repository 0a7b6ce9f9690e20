"""Receive what one push brings to a task: its messages, the runs they make, and the answer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
import orjson

from triggerkit.configuration.table_name import table_text
from triggerkit.errors import FieldProblem, InvalidPayload
from triggerkit.log.entry import partition_of
from triggerkit.message import Metadata, row_key
from triggerkit.runs.run import NewRun, RunRef
from triggerkit.tasks.payload.payload_type import (
    Json,
    RawEnvelope,
    read_envelope,
    read_envelopes,
)
from triggerkit.tasks.receive.body import BodyRefused, split
from triggerkit.tasks.task import Task

#: Most messages in one request.
MAX_MESSAGES = 1000

#: What of an answer is for the handles' and failed items' own words, each: what the sender reads of
#: it has room for all of them.
HANDLE_BYTES = 100
MAX_ERROR_CHARS = 200

#: Most problems of fields that one answer lists.
MAX_PROBLEMS = 100


class _Key(msgspec.Struct):
    idempotency_key: str


class _Keyed(msgspec.Struct):
    metadata: _Key


class Sender(NamedTuple):
    """The sender of a push, and what it says of it.

    `batch_id` stays the same when it is sent again. One that `is_ours` understands an answer that
    names failed items, of at most `reads_bytes` where there is a limit. `traceparent` is a W3C
    trace context.
    """

    batch_id: str | None
    is_ours: bool
    traceparent: str | None = None
    reads_bytes: int | None = None


class Receipt:
    """The messages of one push."""

    def __init__(self, task: Task[Any, Any, Any], sender: Sender, body: bytes) -> None:
        """`body` is JSON: one message, or `{"data": [message, …]}`.

        Raises:
            BodyRefused: it is malformed, there is no message, or there are too many.
        """
        self._task = task
        self._sender = sender
        self._body = body
        #: The good messages of a task that takes changes, by their place in the request.
        self._envelopes: dict[int, RawEnvelope] = {}
        self._failed: dict[int, InvalidPayload] = {}
        #: All messages, if they can be read in one go: then nothing has to be split.
        self._whole = self._read_whole()
        self._is_batch = self._whole is not None or self._split[0]
        self._count = len(self._messages if self._whole is None else self._whole)
        if not self._count:
            raise BodyRefused(422, "data is empty")
        if self._count > MAX_MESSAGES:
            raise BodyRefused(413, f"more than {MAX_MESSAGES} messages in one request")

    def runs(self) -> list[NewRun]:
        """Return the runs to accept: one for a batch task's whole batch, else one per message.

        Raises:
            InvalidPayload: a message does not fit, and its sender does not understand `failed`.
        """
        self._check()
        good = [i for i in range(self._count) if i not in self._failed]
        if not good:
            return []
        if self._task.payload_type.shape == "batch":
            return [self._batch_run(good)]
        return [self._message_run(i) for i in good]

    @property
    def failed(self) -> list[tuple[str | None, InvalidPayload]]:
        """The messages that do not fit, by their idempotency keys."""
        return [(_own_key(self._messages[i]), error) for i, error in self._failed.items()]

    def body(self, handles: list[RunRef]) -> dict[str, Any]:
        """Return the answer: a handle per accepted message, and the messages that failed."""
        if not self._is_batch:
            return handles[0].as_json()
        if self._task.payload_type.shape == "batch":
            handles = handles * (self._count - len(self._failed))
        answer: dict[str, Any] = {"data": [handle.as_json() for handle in handles]}
        if self._failed:
            answer["failed"] = [
                {"idempotency_key": key, "error": str(error)[:MAX_ERROR_CHARS]}
                for key, error in self.failed
            ]
        return answer

    def _read_whole(self) -> list[RawEnvelope] | None:
        if self._task.payload_type.shape != "plain":
            with suppress(InvalidPayload):
                return read_envelopes(self._body)
        return None

    @cached_property
    def _split(self) -> tuple[bool, list[msgspec.Raw]]:
        return split(self._body, alone=self._task.payload_type.shape == "plain")

    @property
    def _messages(self) -> list[msgspec.Raw]:
        return self._split[1]

    def _check(self) -> None:
        if self._whole is not None:
            with suppress(InvalidPayload):
                self._task.payload_type.check(self._whole)
                self._envelopes = dict(enumerate(self._whole))
                return
        for i, message in enumerate(self._messages):
            try:
                self._check_one(i, message)
            except InvalidPayload as error:
                self._failed[i] = error
        if self._failed and not (self._is_batch and self._sender.is_ours and self._can_answer()):
            raise InvalidPayload(self._problems())

    def _can_answer(self) -> bool:
        """Return whether the sender can read which items failed: each has a key, and all of them
        fit into an answer. Else it divides the batch."""
        limit = self._sender.reads_bytes
        size_bytes = self._count * (HANDLE_BYTES + len(orjson.dumps(self._task.name)))
        for key, error in self.failed:
            if key is None:
                return False
            size_bytes += HANDLE_BYTES + len(orjson.dumps(key))
            size_bytes += len(orjson.dumps(str(error)[:MAX_ERROR_CHARS]))
        return limit is None or size_bytes <= limit

    def _check_one(self, index: int, message: Json) -> None:
        payload_type = self._task.payload_type
        if payload_type.shape == "plain":
            payload_type.read(message)
            return
        envelope = read_envelope(message)
        payload_type.check([envelope])
        self._envelopes[index] = envelope

    def _problems(self) -> list[FieldProblem]:
        found = [
            FieldProblem(("data", i, *problem.loc) if self._is_batch else problem.loc, problem.msg)
            for i, error in self._failed.items()
            for problem in error.problems
        ]
        return found[:MAX_PROBLEMS]

    def _batch_run(self, good: Sequence[int]) -> NewRun:
        metadata = [self._envelopes[i].metadata for i in good]
        key = self._sender.batch_id if self._is_batch else None
        return self._task.run_of(
            self._payload(good),
            items=len(good),
            idempotency_key=key or _joined([self._key(i) for i in good]),
            concurrency_key=self._batch_key(metadata[0]),
            source=_source(metadata),
            traceparent=self._sender.traceparent,
        )

    def _payload(self, good: Sequence[int]) -> bytes:
        if self._is_batch and not self._failed:
            return self._body
        return b'{"data":[%b]}' % b",".join(bytes(self._messages[i]) for i in good)

    def _message_run(self, index: int) -> NewRun:
        key = source = None
        if index in self._envelopes:
            metadata = self._envelopes[index].metadata
            row = row_key(metadata.table_schema, metadata.table_name, metadata.record_pks)
            key = f"row/{row}" if metadata.group is None else f"group/{metadata.group}"
            source = {**_source([metadata]), "key": row}
        return self._task.run_of(
            bytes(self._messages[index]),
            idempotency_key=self._key(index),
            concurrency_key=key,
            source=source,
            traceparent=self._sender.traceparent,
        )

    def _key(self, index: int) -> str | None:
        """Return the key of a message: its own, else one of the request's id and its place
        there."""
        if index in self._envelopes:
            own = self._envelopes[index].metadata.idempotency_key
            if own is not None:
                return own
        if self._sender.batch_id is None or not self._is_batch:
            return self._sender.batch_id
        return f"{self._sender.batch_id}/{index}"

    def _batch_key(self, metadata: Metadata) -> str:
        """Batches of one consumer and partition run one after another, so that no row's later
        version overtakes an earlier one. A stranger's batches all wait for each other."""
        consumer = _consumer(metadata) or self._task.name
        if not self._sender.is_ours or metadata.group is not None:
            return consumer
        key = orjson.dumps([str(pk) for pk in metadata.record_pks]).decode()
        return f"{consumer}/{partition_of(metadata.table_schema, metadata.table_name, key)}"


def _source(metadata: Sequence[Metadata]) -> dict[str, Any]:
    first, last = metadata[0], metadata[-1]
    return {
        "consumer": _consumer(first),
        "table": table_text(first.table_schema, first.table_name),
        "position": first.position,
        "last_position": last.position,
        "commit_lsn": first.commit_lsn,
    }


def _consumer(metadata: Metadata) -> str | None:
    return None if metadata.consumer is None else metadata.consumer.name


def _own_key(message: Json) -> str | None:
    """Return the idempotency key of a message that does not fit, if it has one all the same."""
    try:
        return msgspec.json.decode(message, type=_Keyed).metadata.idempotency_key
    except msgspec.ValidationError:
        return None


def _joined(keys: list[str | None]) -> str | None:
    """Return one key for several messages; None when one of them has none."""
    if len(keys) == 1 or None in keys:
        return None if None in keys else keys[0]
    return hashlib.sha256("\n".join(map(str, keys)).encode()).hexdigest()

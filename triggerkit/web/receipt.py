"""What one request to a webhook route brings: its messages, the runs they make, and the answer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from triggerkit.errors import FieldProblem, InvalidPayload
from triggerkit.log.entry import partition_of
from triggerkit.message import row_key
from triggerkit.runs.run import Handle, NewRun
from triggerkit.web.body import Refused, dump_json
from triggerkit.worker.task import Task

#: Most messages in one request.
MAX_MESSAGES = 1000

#: Most problems of fields that one answer lists.
MAX_PROBLEMS = 100


class Receipt:
    """One request's messages."""

    def __init__(self, task: Task[Any, Any], headers: Mapping[str, str], body: Any) -> None:
        """`headers` maps lower-case names to values; `body` is the parsed JSON: one message, or
        `{"data": [message, …]}`.

        Raises:
            Refused: there is no message, or there are too many.
        """
        self._task = task
        self._webhook_id = headers.get("webhook-id")
        self._sender_is_ours = "triggerkit-attempt" in headers
        self._is_batch = isinstance(body, dict) and isinstance(body.get("data"), list)
        self._messages: list[Any] = body["data"] if self._is_batch else [body]
        self._failed: dict[int, InvalidPayload] = {}
        if not self._messages:
            raise Refused(422, "data is empty")
        if len(self._messages) > MAX_MESSAGES:
            raise Refused(413, f"more than {MAX_MESSAGES} messages in one request")

    def runs(self) -> list[NewRun]:
        """The runs to accept: one for a batch task's whole batch, else one per message.

        Raises:
            InvalidPayload: a message does not fit, and its sender does not understand `failed`.
        """
        self._check()
        good = [i for i in range(len(self._messages)) if i not in self._failed]
        if not good:
            return []
        if self._task.payload_type.shape == "batch":
            return [self._batch_run(good)]
        return [self._message_run(i) for i in good]

    def body(self, handles: list[Handle]) -> dict[str, Any]:
        """The answer: a handle per accepted message, and the messages that failed."""
        if not self._is_batch:
            return handles[0].as_json()
        if self._task.payload_type.shape == "batch":
            handles = handles * (len(self._messages) - len(self._failed))
        answer: dict[str, Any] = {"data": [handle.as_json() for handle in handles]}
        if self._failed:
            answer["failed"] = [
                {"idempotency_key": _idempotency_key(self._messages[i]), "error": str(error)}
                for i, error in self._failed.items()
            ]
        return answer

    def _check(self) -> None:
        for i, message in enumerate(self._messages):
            try:
                self._task.payload_type.parse(message)
            except InvalidPayload as error:
                self._failed[i] = error
        if self._failed and not (self._is_batch and self._sender_is_ours):
            raise InvalidPayload(self._problems())

    def _problems(self) -> list[FieldProblem]:
        found = [
            FieldProblem(("data", i, *problem.loc) if self._is_batch else problem.loc, problem.msg)
            for i, error in self._failed.items()
            for problem in error.problems
        ]
        return found[:MAX_PROBLEMS]

    def _batch_run(self, good: Sequence[int]) -> NewRun:
        messages = [self._messages[i] for i in good]
        key = self._webhook_id if self._is_batch else None
        return replace(
            self._task.run_of(dump_json({"data": messages}), items=len(messages)),
            idempotency_key=key or _joined([self._key(i) for i in good]),
            concurrency_key=self._batch_key(messages[0]["metadata"]),
            source=_source(messages),
        )

    def _message_run(self, index: int) -> NewRun:
        message = self._messages[index]
        run = replace(self._task.run_of(dump_json(message)), idempotency_key=self._key(index))
        if self._task.payload_type.shape == "plain":
            return run
        row = _row(message["metadata"])
        return replace(run, concurrency_key=f"row/{row}", source={**_source([message]), "key": row})

    def _key(self, index: int) -> str | None:
        """A message is known by its own key, else by the request's id and its place there."""
        if self._task.payload_type.shape != "plain":
            own = _idempotency_key(self._messages[index])
            if own is not None:
                return own
        if self._webhook_id is None or not self._is_batch:
            return self._webhook_id
        return f"{self._webhook_id}/{index}"

    def _batch_key(self, metadata: Mapping[str, Any]) -> str:
        """Batches of one consumer and partition run one after another, so that no row's later
        version overtakes an earlier one. A stranger's batches all wait for each other."""
        consumer = (metadata.get("consumer") or {}).get("name") or self._task.name
        if not self._sender_is_ours:
            return str(consumer)
        key = orjson.dumps([str(pk) for pk in metadata.get("record_pks", ())]).decode()
        return f"{consumer}/{partition_of(metadata['table_schema'], metadata['table_name'], key)}"


def _source(messages: list[Any]) -> dict[str, Any]:
    first, last = messages[0]["metadata"], messages[-1]["metadata"]
    return {
        "consumer": (first.get("consumer") or {}).get("name"),
        "table": f"{first['table_schema']}.{first['table_name']}",
        "position": first.get("position"),
        "last_position": last.get("position"),
        "commit_lsn": first.get("commit_lsn"),
    }


def _row(metadata: Mapping[str, Any]) -> str:
    return row_key(metadata["table_schema"], metadata["table_name"], metadata.get("record_pks", []))


def _idempotency_key(message: Any) -> str | None:
    metadata = message.get("metadata") if isinstance(message, dict) else None
    key = metadata.get("idempotency_key") if isinstance(metadata, dict) else None
    return key if isinstance(key, str) else None


def _joined(keys: list[str | None]) -> str | None:
    """One key for several messages; None when one of them has none."""
    if len(keys) == 1 or None in keys:
        return None if None in keys else keys[0]
    return hashlib.sha256("\n".join(map(str, keys)).encode()).hexdigest()

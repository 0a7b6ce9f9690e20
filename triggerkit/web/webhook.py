"""The webhook route: checks, parses and accepts; it answers once the runs are durable."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from triggerkit.errors import InvalidPayload, NotDurable
from triggerkit.log.entry import partition_of
from triggerkit.message import row_key
from triggerkit.runs.client import Client, portal
from triggerkit.runs.run import Handle, NewRun
from triggerkit.settings import Settings
from triggerkit.web.auth import has_bearer, unauthorized
from triggerkit.web.body import Refused, read_json
from triggerkit.worker.task import Task

#: Most messages in one request.
MAX_MESSAGES = 1000

#: Where `serve` puts its client in the ASGI scope; in another app the process's portal stands in.
CLIENT_SCOPE_KEY = "triggerkit.client"


class WebhookRoute(Route):
    """A Starlette route that starts runs of one task, whatever the payload says."""

    def __init__(self, path: str, task: Task[Any, Any]) -> None:
        super().__init__(path, self._handle, methods=["POST"], name=f"webhook:{task.name}")
        self.task = task

    async def _handle(self, request: Request) -> Response:
        client: Client | None = request.scope.get(CLIENT_SCOPE_KEY)
        settings = client.settings if client else Settings.load()
        if not has_bearer(request, settings.webhook_secrets):
            return unauthorized()
        try:
            body = await read_json(request)
            answer = Receipt(self.task, request.headers, body)
            runs = answer.runs()
            handles = await (client or PortalClient()).accept(runs) if runs else []
        except Refused as refused:
            return JSONResponse({"error": refused.error}, status_code=refused.status)
        except InvalidPayload as error:
            return _invalid(error)
        except NotDurable as error:
            return JSONResponse({"error": str(error)}, 503, headers={"retry-after": "1"})
        return JSONResponse(answer.body(handles))


def webhook(path: str, *, task: Task[Any, Any]) -> WebhookRoute:
    """A route for any ASGI app: `POST path` with one message or `{"data": [message, …]}` starts
    runs of `task`, if it carries `Authorization: Bearer` and the webhook secret."""
    return WebhookRoute(path, task)


class PortalClient:
    """Stands in for `serve`'s client in an app that runs on its own."""

    async def accept(self, runs: list[NewRun]) -> list[Handle]:
        """See `Acceptor.accept`."""
        return await portal.accept_async(runs)


class Receipt:
    """One request's messages, the runs they make, and the answer."""

    def __init__(self, task: Task[Any, Any], headers: Any, body: Any) -> None:
        """`headers` maps lower-case names to values; `body` is the parsed JSON.

        Raises:
            Refused: the body is neither a message nor `{"data": [message, …]}`.
        """
        self._task = task
        self._webhook_id: str | None = headers.get("webhook-id")
        self._sender_is_ours = "triggerkit-attempt" in headers
        self._is_batch = isinstance(body, dict) and isinstance(body.get("data"), list)
        self._messages: list[Any] = body["data"] if self._is_batch else [body]
        if not self._messages:
            raise Refused(422, "data is empty")
        if len(self._messages) > MAX_MESSAGES:
            raise Refused(413, f"more than {MAX_MESSAGES} messages in one request")
        self._failed: dict[int, InvalidPayload] = {}

    def runs(self) -> list[NewRun]:
        """The runs to accept: one for a batch task's whole batch, else one per message.

        Raises:
            InvalidPayload: a message does not fit, and its sender does not understand `failed`.
        """
        good = [m for i, m in enumerate(self._messages) if self._fits(i, m)]
        if not good:
            return []
        if self._task.payload_type.shape == "batch":
            return [self._batch_run(good)]
        return [self._message_run(m) for m in good]

    def body(self, handles: list[Handle]) -> dict[str, Any]:
        """The answer: a handle per accepted message, and the messages that failed."""
        if not self._is_batch:
            return handles[0].as_json()
        accepted = len(self._messages) - len(self._failed)
        if self._task.payload_type.shape == "batch":
            handles = handles * accepted
        answer: dict[str, Any] = {"data": [handle.as_json() for handle in handles]}
        if self._failed:
            answer["failed"] = [
                {"idempotency_key": _idempotency_key(self._messages[i]), "error": str(error)}
                for i, error in self._failed.items()
            ]
        return answer

    def _fits(self, index: int, message: Any) -> bool:
        try:
            self._task.payload_type.parse(message)
        except InvalidPayload as error:
            if not (self._is_batch and self._sender_is_ours):
                raise
            self._failed[index] = error
            return False
        return True

    def _batch_run(self, messages: list[Any]) -> NewRun:
        run = self._task.run_of(orjson.dumps({"data": messages}), items=len(messages))
        key = self._webhook_id if self._is_batch else None
        if key is None:
            item_keys = [_idempotency_key(m) for m in messages]
            key = item_keys[0] if len(item_keys) == 1 else _joined(item_keys)
        return _with(run, key, self._batch_key(messages), _source(messages))

    def _message_run(self, message: Any) -> NewRun:
        run = self._task.run_of(orjson.dumps(message))
        if self._task.payload_type.shape == "plain":
            key = None if self._is_batch else self._webhook_id
            return _with(run, key, None, None)
        row = _row(message)
        key = _idempotency_key(message) or (None if self._is_batch else self._webhook_id)
        return _with(run, key, f"row/{row}", {**_source([message]), "key": row})

    def _batch_key(self, messages: list[Any]) -> str:
        """Batches of one consumer and partition run one after another, so that no row's later
        version overtakes an earlier one. A stranger's batches all wait for each other."""
        metadata = messages[0]["metadata"]
        consumer = (metadata.get("consumer") or {}).get("name") or self._task.name
        if not self._sender_is_ours:
            return f"{consumer}"
        key = orjson.dumps([str(pk) for pk in metadata.get("record_pks", ())]).decode()
        partition = partition_of(metadata["table_schema"], metadata["table_name"], key)
        return f"{consumer}/{partition}"


def _with(
    run: NewRun,
    idempotency_key: str | None,
    concurrency_key: str | None,
    source: dict[str, Any] | None,
) -> NewRun:
    return replace(
        run, idempotency_key=idempotency_key, concurrency_key=concurrency_key, source=source
    )


def _source(messages: list[Any]) -> dict[str, Any]:
    first, last = messages[0]["metadata"], messages[-1]["metadata"]
    return {
        "consumer": (first.get("consumer") or {}).get("name"),
        "table": f"{first['table_schema']}.{first['table_name']}",
        "position": first.get("position"),
        "last_position": last.get("position"),
        "commit_lsn": first.get("commit_lsn"),
    }


def _row(message: Any) -> str:
    metadata = message["metadata"]
    return row_key(metadata["table_schema"], metadata["table_name"], metadata.get("record_pks", []))


def _idempotency_key(message: Any) -> str | None:
    metadata = message.get("metadata") if isinstance(message, dict) else None
    key = metadata.get("idempotency_key") if isinstance(metadata, dict) else None
    return key if isinstance(key, str) else None


def _joined(keys: list[str | None]) -> str | None:
    if any(key is None for key in keys):
        return None
    return hashlib.sha256("\n".join(map(str, keys)).encode()).hexdigest()


def _invalid(error: InvalidPayload) -> JSONResponse:
    detail = [{"loc": list(p.loc), "msg": p.msg} for p in error.problems]
    return JSONResponse({"error": "Invalid payload", "detail": detail}, status_code=422)

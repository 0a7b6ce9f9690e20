"""The process that reads messages for the project's tasks: `python -m …direct.child`.

It imports the task modules, whose types check the messages: in the stream's own process a
validator that computes would hold up everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from triggerkit.consumers.calls.process import SPENT, Answering, answer_requests
from triggerkit.errors import InvalidPayload, unknown_name
from triggerkit.project import Project
from triggerkit.runs.run import NewRun
from triggerkit.tasks.receive.body import BodyRefused
from triggerkit.tasks.receive.receipt import Receipt, Sender
from triggerkit.tasks.registry import load_tasks
from triggerkit.tasks.task import Task

#: What an answer is: what was received, refused for its content, no task of this name, a fault.
RECEIVED, REFUSED, UNKNOWN, FAULT = b"R", b"C", b"U", b"X"


class Request(msgspec.Struct):
    """Messages for a task; with no `body` it is only asked for."""

    task: str
    body: bytes = b""
    batch_id: str = ""
    traceparent: str = ""


class Received(msgspec.Struct):
    """The runs that messages make, and those that do not fit, by key. A run without a payload has
    the whole body."""

    runs: list[NewRun]
    failed: list[tuple[str | None, str]]


class Refused(msgspec.Struct):
    """Why none of the messages was taken, and the status that a webhook route has for it."""

    status: int
    error: str


encode = msgspec.msgpack.encode

_request = msgspec.msgpack.Decoder(Request).decode


def load(setting: dict[str, Any]) -> Answering:
    """Return what answers for the tasks of the project in `setting`.

    Raises:
        ConfigurationError: they cannot be loaded.
    """
    tasks = load_tasks(Project(Path(setting["folder"]), tasks=tuple(setting["tasks"])))
    return lambda _, request: _answered(tasks, _request(request))


def _answered(tasks: Mapping[str, Task[Any, Any, Any]], request: Request) -> tuple[bytes, bytes]:
    task = tasks.get(request.task)
    if task is None:
        return UNKNOWN, unknown_name("task", request.task, sorted(tasks)).encode()
    if not request.body:
        return RECEIVED, encode(Received([], []))
    try:
        return RECEIVED, encode(_received(task, request))
    except BodyRefused as refused:
        return REFUSED, encode(Refused(refused.status, refused.error))
    except InvalidPayload as error:
        return REFUSED, encode(Refused(422, str(error)))
    except BaseException as error:
        # What a type's code raises, SystemExit included, ends no other delivery.
        kind = SPENT if isinstance(error, MemoryError) else FAULT
        return kind, f"the type of task {task.name} raised {type(error).__name__}".encode()


def _received(task: Task[Any, Any, Any], request: Request) -> Received:
    sender = Sender(request.batch_id, is_ours=True, traceparent=request.traceparent)
    receipt = Receipt(task, sender, request.body)
    runs = [
        replace(run, payload=b"") if run.payload is request.body else run for run in receipt.runs()
    ]
    return Received(runs, [(key, str(error)) for key, error in receipt.failed])


if __name__ == "__main__":
    answer_requests(load)

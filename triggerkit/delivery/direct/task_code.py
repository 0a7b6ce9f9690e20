"""Have messages read as the project's tasks take them, in a process of their own."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec

from triggerkit.consumers.calls.process import MESSAGE, SPENT, Process
from triggerkit.delivery.direct.child import FAULT, UNKNOWN, Received, Refused, Request, encode
from triggerkit.delivery.direct.child import REFUSED as REFUSED_KIND
from triggerkit.delivery.failed_items import Failed
from triggerkit.delivery.push import Answer, traceparent
from triggerkit.errors import ConfigurationError
from triggerkit.project import Project
from triggerkit.tasks.receive.body import MAX_BODY_BYTES
from triggerkit.tasks.receive.receipt import MAX_ERROR_CHARS

#: Seconds that reading one batch may take.
READ_S = 10.0

_received = msgspec.msgpack.Decoder(Received).decode
_refused = msgspec.msgpack.Decoder(Refused).decode


class TaskCode:
    """The project's tasks; what several lanes have read is read one after another."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._process: Process | None = None
        self._reading = asyncio.Lock()

    async def require(self, task: str) -> None:
        """Load the tasks, unless they are.

        Raises:
            ConfigurationError: they cannot be, or none has this name.
        """
        async with self._reading:
            await self._asked(Request(task))

    async def read(self, task: str, body: bytes, batch_id: str) -> Answer:
        """Read a batch: the answer has the runs that it makes, of which nothing is made yet.

        Raises:
            ConfigurationError: the tasks had to be loaded anew, and cannot be any more.
        """
        if len(body) > MAX_BODY_BYTES:
            problem = f"the message is larger than {MAX_BODY_BYTES} bytes"
            return Answer("content_refused", 413, problem)
        request = Request(task, body, batch_id, traceparent(batch_id))
        try:
            async with self._reading:
                try:
                    kind, content = await self._asked(request)
                except (asyncio.IncompleteReadError, OSError) as error:
                    if isinstance(error, TimeoutError):
                        raise
                    # Others end processes, too: it is blamed when it happens again with it.
                    kind, content = await self._asked(request)
        except TimeoutError:
            return _blamed(f"the type of task {task} took longer than {READ_S:g} s")
        except (asyncio.IncompleteReadError, OSError):
            return _blamed(f"the type of task {task} ended the process that read it")
        if kind in (FAULT, SPENT):
            return _blamed(content.decode())
        if kind == REFUSED_KIND:
            refused = _refused(content)
            return Answer("content_refused", refused.status, refused.error[:MAX_ERROR_CHARS])
        received = _received(content)
        return Answer(
            "delivered",
            200,
            failed=tuple(
                Failed(key or "", error[:MAX_ERROR_CHARS], None) for key, error in received.failed
            ),
            runs=tuple(run if run.payload else replace(run, payload=body) for run in received.runs),
        )

    async def end(self) -> None:
        """End the process at once."""
        process, self._process = self._process, None
        if process is not None:
            await process.reap()

    async def _asked(self, request: Request) -> tuple[bytes, bytes]:
        if self._process is None:
            self._process = await Process.start(
                "triggerkit.delivery.direct.child",
                ", ".join(self._project.tasks),
                folder=str(self._project.folder),
                tasks=self._project.tasks,
            )
        try:
            self._process.write(MESSAGE, encode(request))
            async with asyncio.timeout(READ_S):
                kind, content = await self._process.read()
        except BaseException:
            # The answer to come would be taken for another's.
            await self.end()
            raise
        if kind == SPENT:
            await self.end()
        if kind == UNKNOWN:
            raise ConfigurationError(content.decode())
        return kind, content


def _blamed(reason: str) -> Answer:
    """Return the answer to a batch of which a message is to blame: nothing else was read."""
    return Answer("content_refused", None, reason)

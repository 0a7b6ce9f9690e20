"""A server program running under its guard: started, waited for, stopped, from asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

from triggerkit import lifeline
from triggerkit.embedded.account import Account
from triggerkit.errors import CannotConnect

#: How long an orderly stop may take before it is forced, in seconds.
STOP_PATIENCE_S = 10
#: A longer log is set aside at the next start, in bytes.
LOG_LIMIT_BYTES = 10 * 1024 * 1024

_GUARD = Path(__file__).with_name("guard.py")
_LOG_TAIL_LINES = 12


@dataclass(frozen=True, slots=True)
class Program:
    """A program to run: as whom, where its output goes, and how it is asked to end."""

    name: str
    command: Sequence[str | Path]
    log: Path
    stop_signal: signal.Signals
    #: Sent when the stop signal was not obeyed; SIGKILL follows a second later.
    force_signal: signal.Signals
    account: Account | None = None


class GuardedProcess:
    """One running program. It ends with this process, however that ends (see `guard`)."""

    def __init__(
        self,
        program: Program,
        process: asyncio.subprocess.Process,
        held: lifeline.Lifeline,
        log_start: int,
    ) -> None:
        self._program = program
        self._process = process
        self._lifeline = held
        self._log_start = log_start
        #: The program's own process id, not its guard's; 0 if it never started.
        self.pid = 0

    @classmethod
    async def start(cls, program: Program, keep_fds: Sequence[int] = ()) -> Self:
        """Start `program`, which inherits `keep_fds`, and return once its process exists.

        Raises:
            CannotConnect: not even the guard could start.
        """
        log_fd, log_start = _open_log(program.log)
        held = lifeline.hold()
        try:
            process = await asyncio.create_subprocess_exec(
                *_guard_command(program, held.read_fd),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log_fd,
                pass_fds=(held.read_fd, *keep_fds),
                start_new_session=True,
                cwd="/",
                env=_environment(),
            )
        except BaseException:
            held.close()
            raise
        finally:
            os.close(log_fd)
        held.close_read()
        started = cls(program, process, held, log_start)
        await started._learn_pid()
        return started

    @property
    def running(self) -> bool:
        """Return whether the guard, and so the program, has not ended yet."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Wait for the end; returns the exit code, 128 + n when signal n ended the program."""
        code = await self._process.wait()
        self._lifeline.close()
        return code

    async def stop(self, *, force: bool = False) -> int:
        """Ask the program to end, insist after ten seconds or, with `force`, at once.

        Returns the exit code. When this call is cancelled, the program is given two seconds.
        """
        try:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGQUIT if force else signal.SIGTERM)
            return await self.wait()
        finally:
            self._lifeline.close()

    async def until_ready(self, probe: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
        """Call `probe` with growing pauses until it returns True.

        Raises:
            CannotConnect: the program ended, or the time was over; with its last lines.
        """
        ready = asyncio.ensure_future(_repeat(probe))
        ended = asyncio.ensure_future(self.wait())
        try:
            await asyncio.wait(
                {ready, ended}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if ready.done():
                ready.result()
            elif ended.done():
                raise self.failure(f"ended with exit code {ended.result()}")
            else:
                raise self.failure(f"was not ready within {timeout_s:g} s")
        finally:
            ready.cancel()
            ended.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)

    def failure(self, what: str) -> CannotConnect:
        """Return an error that says what happened and ends with the last lines of this run's
        log."""
        with self._program.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        tail = "\n".join(f"  {line}" for line in lines)
        return CannotConnect(
            f"the embedded {self._program.name} {what}; {self._program.log} ends with:\n{tail}"
        )

    async def _learn_pid(self) -> None:
        output = cast("asyncio.StreamReader", self._process.stdout)
        try:
            self.pid = int(await output.readline() or 0)
        except BaseException:
            self._lifeline.close()
            raise


async def run_to_end(program: Program, keep_fds: Sequence[int] = ()) -> None:
    """Run a program that ends by itself.

    Raises:
        CannotConnect: its exit code was not 0; with its last lines.
    """
    process = await GuardedProcess.start(program, keep_fds)
    try:
        code = await process.wait()
    except BaseException:
        await process.stop(force=True)
        raise
    if code != 0:
        raise process.failure(f"ended with exit code {code}")


async def _repeat(probe: Callable[[], Awaitable[bool]]) -> None:
    pause_s = 0.01
    while not await probe():
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.1)


def _guard_command(program: Program, lifeline_fd: int) -> list[str]:
    options = {
        "lifeline": lifeline_fd,
        "stop": int(program.stop_signal),
        "force": int(program.force_signal),
        "patience-s": STOP_PATIENCE_S,
    }
    if program.account is not None:
        options |= {"uid": program.account.uid, "gid": program.account.gid}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-IS", str(_GUARD), *arguments, "--", *map(str, program.command)]


def _environment() -> dict[str, str]:
    """Little of ours: neither PG* settings nor secrets, which another user might read there."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"} | kept


def _open_log(log: Path) -> tuple[int, int]:
    """Open the log for appending; returns its descriptor and its present size in bytes."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    return fd, os.fstat(fd).st_size

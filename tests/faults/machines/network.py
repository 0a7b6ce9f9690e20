"""Network namespaces as machines, and the switch that joins them."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import TypeAlias

from tests import ROOT

#: From <linux/if_tun.h> and <linux/sched.h>.
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000

#: Bytes of the largest packet: few packets, as on a fast network.
_MTU = 9000

#: A pair of addresses: what the first sends to the second is dropped.
Way: TypeAlias = tuple[str, str]


class CannotMakeMachines(Exception):
    """This system has no network namespaces, or this user may not make any."""


class Machine:
    """A network namespace with addresses of its own."""

    def __init__(self, name: str, addresses: Sequence[str]) -> None:
        self.name = name
        self.addresses = tuple(addresses)
        self._namespace = f"tk-{name}-{token_hex(3)}"
        self.device = -1

    @property
    def address(self) -> str:
        """Its first address."""
        return self.addresses[0]

    def make(self) -> None:
        """Make the namespace, and its end of a line to the switch."""
        _ip("netns", "add", self._namespace)
        with self.entered():
            self.device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            wanted = struct.pack("16sH22x", b"line", _IFF_TUN | _IFF_NO_PI)
            fcntl.ioctl(self.device, _TUNSETIFF, wanted)
        within = ["-n", self._namespace]
        _ip(*within, "link", "set", "lo", "up")
        for address in self.addresses:
            _ip(*within, "addr", "add", f"{address}/24", "dev", "line")
        _ip(*within, "link", "set", "line", "mtu", str(_MTU), "up")

    def remove(self) -> None:
        """Remove it; processes in it must have ended."""
        if self.device >= 0:
            os.close(self.device)
        subprocess.run(
            ["ip", "netns", "del", self._namespace], check=False, capture_output=True, timeout=10
        )

    def enter(self) -> None:
        """Move this thread there for good; what it starts and connects from then on is there."""
        _enter(Path(f"/run/netns/{self._namespace}"))

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be there for a while, with this thread."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            self.enter()
            yield
        finally:
            _set(before)
            os.close(before)


class Network:
    """Machines by name, and what is cut between them."""

    def __init__(self, delay_s: float, loss: float, seed: int | None = None) -> None:
        self._seed = random.randrange(2**32) if seed is None else seed
        self._delay_s, self._loss = delay_s, loss
        self._subnet = f"10.232.{random.randrange(256)}"
        self._used = 0
        self.machines: dict[str, Machine] = {}
        self._switch: subprocess.Popen[str] | None = None

    @property
    def subnet(self) -> str:
        """All of its addresses."""
        return f"{self._subnet}.0/24"

    def make(self, machines: Mapping[str, int]) -> None:
        """Make machines by name, each with so many addresses, and join them.

        Raises:
            CannotMakeMachines: it says what is missing.
        """
        missing = _missing()
        if missing is not None:
            raise CannotMakeMachines(missing)
        try:
            for name, count in machines.items():
                addresses = [f"{self._subnet}.{self._used + 1 + n}" for n in range(count)]
                self._used += count
                self.machines[name] = Machine(name, addresses)
                self.machines[name].make()
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", b"") or str(error).encode()
            self.remove()
            raise CannotMakeMachines(f"may not make machines: {said.decode().strip()}") from error
        self._join()

    def remove(self) -> None:
        """Remove all of it."""
        if self._switch is not None and self._switch.stdin is not None:
            self._switch.stdin.close()
            self._switch.wait(10)
        for machine in self.machines.values():
            machine.remove()

    def cut(self, ways: Iterable[Way]) -> None:
        """Drop what goes these ways from now on, and nothing else."""
        assert self._switch is not None
        assert self._switch.stdin is not None
        assert self._switch.stdout is not None
        print(json.dumps(list(ways)), file=self._switch.stdin, flush=True)
        self._switch.stdout.readline()

    def mend(self) -> None:
        """Drop nothing any more."""
        self.cut([])

    def _join(self) -> None:
        places = {
            address: machine.device
            for machine in self.machines.values()
            for address in machine.addresses
        }
        how = [str(self._seed), str(self._delay_s), str(self._loss)]
        self._switch = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.faults.machines.switch", *how),
                *(f"{address}={device}" for address, device in places.items()),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=sorted(set(places.values())),
        )


def between(
    ones: Sequence[str], others: Sequence[str], *, there: bool = True, back: bool = True
) -> list[Way]:
    """The ways from each of `ones` to each of `others`, and back."""
    pairs = [(one, other) for one in ones for other in others]
    return [*(pairs if there else []), *((b, a) for a, b in (pairs if back else []))]


def _missing() -> str | None:
    if shutil.which("ip") is None:
        return "needs ip, of iproute2"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    return None


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


def _enter(namespace: Path) -> None:
    fd = os.open(namespace, os.O_RDONLY)
    try:
        _set(fd)
    finally:
        os.close(fd)


def _set(fd: int) -> None:
    # Of this thread alone; Python has it from 3.12 on.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))

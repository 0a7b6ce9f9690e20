"""The switch between the machines: delays every packet, loses some, and drops those of a cut.

Run as `python -m tests.faults.machines.switch SEED DELAY_S LOSS ADDRESS=FD…`, with the TUN device
of each address. Each line of its input is what is cut from then on: a JSON list of pairs of
addresses, of which packets from the first to the second are dropped. It answers each line by an
empty one, and ends with its input.

The kernel's own means are not everywhere: `tc netem` and nftables are modules that many kernels
lack. TUN devices and namespaces are enough here, and a packet dropped is one that nobody refuses.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

#: Larger than any packet.
PACKET_BYTES = 65_536

#: Where the addresses are in a packet of IPv4 (RFC 791, section 3.1).
_SOURCE, _TARGET = slice(12, 16), slice(16, 20)


class Switch:
    """Takes packets from each device, and gives them to that of their target, later."""

    def __init__(self, devices: Mapping[bytes, int], seed: int, delay_s: float, loss: float):
        self._devices = devices
        self._choose = random.Random(seed)
        self._delay_s, self._loss = delay_s, loss
        self._cut: set[tuple[bytes, bytes]] = set()
        #: All are as late as each other: the first that came is the first to go.
        self._under_way: deque[tuple[float, int, bytes]] = deque()

    def run(self) -> None:
        """Switch until the input ends."""
        selector = selectors.DefaultSelector()
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        for device in set(self._devices.values()):
            selector.register(device, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select(self._wait_s()):
                if key.fd != sys.stdin.fileno():
                    self._take(key.fd)
                elif not self._hear():
                    return
            self._give()

    def _wait_s(self) -> float | None:
        return max(0.0, self._under_way[0][0] - time.monotonic()) if self._under_way else None

    def _hear(self) -> bool:
        line = sys.stdin.readline()
        if not line:
            return False
        pairs = [tuple(map(socket.inet_aton, pair)) for pair in json.loads(line)]
        self._cut = {(source, target) for source, target in pairs}
        print(flush=True)
        return True

    def _take(self, device: int) -> None:
        due = time.monotonic() + self._delay_s
        with suppress(BlockingIOError):
            while packet := os.read(device, PACKET_BYTES):
                source, target = packet[_SOURCE], packet[_TARGET]
                # What is no packet of IPv4 between two of us is of no concern.
                there = self._devices.get(target) if packet[0] >> 4 == 4 else None
                if there is None or (source, target) in self._cut:
                    continue
                if self._choose.random() >= self._loss:
                    self._under_way.append((due, there, packet))

    def _give(self) -> None:
        now = time.monotonic()
        while self._under_way and self._under_way[0][0] <= now:
            _, device, packet = self._under_way.popleft()
            # A device whose queue is full drops it, as a line does.
            with suppress(OSError):
                os.write(device, packet)


if __name__ == "__main__":
    places = [argument.partition("=") for argument in sys.argv[4:]]
    devices = {socket.inet_aton(address): int(fd) for address, _, fd in places}
    Switch(devices, int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])).run()

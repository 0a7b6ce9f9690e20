"""Tell of deliveries and of the connection, in lines for people or in JSON for programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from triggerkit.terminal.console import counted, visible
from triggerkit.tunnel.deliveries import Delivery
from triggerkit.tunnel.messages import Summary, summary_of
from triggerkit.tunnel.wire import Ready

#: Characters of a body that details show.
SHOWN_CHARS = 4000

#: Headers whose values are nobody else's to read, beside those that say so by their name.
_SECRET_WORDS = ("authorization", "cookie", "secret", "token", "key", "signature")


class Output(StrEnum):
    """How much is told."""

    compact = "compact"
    quiet = "quiet"
    json = "json"


@dataclass(frozen=True, slots=True)
class Filter:
    """Of which deliveries a line is printed: all of them are made."""

    tables: frozenset[str] = frozenset()
    actions: frozenset[str] = frozenset()

    def shows(self, summary: Summary) -> bool:
        """Return whether any of the messages is of a table, and of an action, that is wanted."""
        is_of_table = not self.tables or not self.tables.isdisjoint(summary.tables)
        return is_of_table and (not self.actions or not self.actions.isdisjoint(summary.actions))


@dataclass(slots=True)
class Display:
    """Prints by `write`, a line at a time. `url_of` says where an endpoint is on this machine."""

    output: Output
    wanted: Filter
    write: Callable[[str], None]
    url_of: Callable[[str, str], str]
    has_keys: bool = False
    #: What was printed last: the keys are about it.
    last: Delivery | None = field(default=None, init=False)
    _delivered: int = field(default=0, init=False)
    _is_lost: bool = field(default=False, init=False)

    def ready(self, ready: Ready, *, is_first: bool, away_s: float) -> None:
        """Say that the tunnels are open, and how many messages wait."""
        self._is_lost = False
        if self.output is Output.json:
            tunnels = [
                {"endpoint": t.endpoint, "url": self.url_of(t.endpoint, t.path),
                 "waiting": t.waiting}
                for t in ready.tunnels
            ]  # fmt: skip
            self._json("ready", user=ready.user, tunnels=tunnels)
            return
        if self.output is Output.quiet:
            return
        if not is_first:
            self.write(f"connected again after {away_s:.0f} s")
        for tunnel in ready.tunnels:
            url = self.url_of(tunnel.endpoint, tunnel.path)
            wait = "waits" if tunnel.waiting == 1 else "wait"
            waiting = f"{counted(tunnel.waiting, 'message')} {wait}"
            self.write(f"{visible(tunnel.endpoint)} → {visible(url)}  {waiting}")
        if is_first and self.has_keys:
            self.write("keys: r sends again · d details · o opens the dashboard · Ctrl-C ends")

    def lost(self, reason: str, wait_s: float) -> None:
        """Say that there is no connection."""
        if self.output is Output.json:
            self._json("lost", reason=reason, retry_in_s=round(wait_s, 1))
        elif not self._is_lost:
            self.write(f"{visible(reason)}; trying again until it is back")
        self._is_lost = True

    def delivered(self, delivery: Delivery) -> None:
        """Tell of a delivery, if it is one of those that are wanted."""
        self._delivered += 1
        summary = summary_of(delivery.body)
        if not self.wanted.shows(summary):
            return
        self.last = delivery
        outcome = delivery.outcome
        if self.output is Output.json:
            response = outcome.response
            self._json(
                "delivery",
                at=delivery.at.isoformat(timespec="milliseconds"),
                endpoint=delivery.push.endpoint,
                path=delivery.push.path,
                status=None if response is None else response.status,
                ms=round(outcome.ms, 1),
                rows=summary.rows,
                tables=sorted(summary.tables),
                actions=sorted(summary.actions),
                id=delivery.batch_id,
                attempt=delivery.push.headers.get("triggerkit-attempt"),
                again=delivery.push.again,
                error=outcome.error,
            )
        elif self.output is Output.compact or not outcome.is_taken:
            self.write(_line(delivery, summary))

    def details(self) -> None:
        """Tell of the last delivery all that there is, but what is secret."""
        if self.last is None:
            self.write("nothing was delivered yet")
            return
        delivery, response = self.last, self.last.outcome.response
        self.write(f"POST {visible(self.url_of(delivery.push.endpoint, delivery.push.path))}")
        for name, value in delivery.push.headers.items():
            shown = "***" if _is_secret(name) else value
            self.write(f"  {visible(name)}: {visible(shown)}")
        self._body(delivery.body)
        if response is None:
            self.write(f"no answer: {visible(delivery.outcome.error or '')}")
            return
        self.write(f"answer {response.status} after {delivery.outcome.ms:.0f} ms")
        self._body(response.body)

    def ended(self) -> None:
        """Say that the command ends."""
        if self.output is Output.json:
            self._json("ended", deliveries=self._delivered)
        elif self.output is Output.compact:
            many = "delivery" if self._delivered == 1 else "deliveries"
            self.write(f"ended after {self._delivered:,} {many}")

    def _body(self, body: bytes) -> None:
        text = body.decode("utf-8", "replace")
        more = f" … {len(text) - SHOWN_CHARS:,} more characters" if len(text) > SHOWN_CHARS else ""
        for line in text[:SHOWN_CHARS].splitlines() or [""]:
            self.write(f"  {visible(line)}")
        if more:
            self.write(f" {more}")

    def _json(self, event: str, **facts: Any) -> None:
        self.write(orjson.dumps({"event": event, **facts}).decode())


def left_out(output: Output, lines: int) -> str:
    """Return the line that stands for lines that nobody took."""
    if output is Output.json:
        return orjson.dumps({"event": "left_out", "lines": lines}).decode()
    return f"{counted(lines, 'line')} left out: nobody took them"


def _line(delivery: Delivery, summary: Summary) -> str:
    outcome, push = delivery.outcome, delivery.push
    response = outcome.response
    parts = [
        f"{delivery.at:%H:%M:%S}",
        f"POST {push.path}",
        "502" if outcome.is_closed else "---" if response is None else str(response.status),
        f"{outcome.ms:.0f} ms",
        counted(summary.rows, "row"),
    ]
    if push.again:
        parts.append("sent again")
    if outcome.error is not None:
        parts.append(outcome.error if push.again else f"{outcome.error}; it is tried again")
    return visible("  ".join(parts))


def _is_secret(name: str) -> bool:
    lower = name.lower()
    return any(word in lower for word in _SECRET_WORDS) and lower != "idempotency-key"

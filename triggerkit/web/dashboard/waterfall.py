"""The joined waterfall of a run: each bar's place on one scale, in thousandths of its whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from triggerkit.consumers.trace.changes import Trace
from triggerkit.consumers.trace.way import Bar, steps_of_change

#: What the scale is divided into, and the least part of it that can be seen.
SCALE = 1000
LEAST = 4

#: Bars that a page shows; of a batch or a loop of spans there may be thousands.
MOST_BARS = 300


@dataclass(frozen=True, slots=True)
class Drawn:
    """A bar as it is drawn: `offset_s` after the first; `took_s` is None for an event and for what
    has not ended. `backwards` is set where it ends before it begins."""

    bar: Bar
    offset_s: float
    took_s: float | None
    left: int
    width: int
    backwards: bool

    @property
    def depth(self) -> int:
        """How far its name is indented."""
        return min((len(self.bar.what) - len(self.bar.what.lstrip())) // 2, 8)


@dataclass(frozen=True, slots=True)
class Waterfall:
    """The bars, the duration of the whole, and whether two clocks disagree in it."""

    bars: Sequence[Drawn]
    whole_s: float
    clocks_differ: bool
    left_out: int


def joined(found: Trace) -> list[Bar]:
    """Return the bars of a change with the waits between its stations."""
    captured = found.captured_at
    bars: list[Bar] = []
    since = captured
    for bar in steps_of_change(found):
        if bar.what == "captured":
            bars += [Bar("to the log", found.committed_at, captured), bar]
            continue
        if ": delivery, attempt " in bar.what:
            what = "waits for delivery" if since == captured else "waits to be delivered again"
            bars.append(Bar(what, since, bar.start, kind="wait"))
            since = bar.end or bar.start
        bars.append(bar)
    return bars


def draw(bars: Sequence[Bar], now: datetime) -> Waterfall:
    """Lay bars out; one that has not ended goes on until `now`."""
    start = min(bar.start for bar in bars)
    ends = [bar.end or max(now, bar.start) for bar in bars]
    whole_s = max(
        (max(end, bar.start) - start).total_seconds() for bar, end in zip(bars, ends, strict=True)
    )
    drawn = list(_drawn(bars[:MOST_BARS], ends, start, max(whole_s, 1e-6)))
    captured = [bar.start for bar in bars if bar.what in ("committed", "captured")]
    differ = any(d.backwards for d in drawn) or captured != sorted(captured)
    return Waterfall(drawn, whole_s, differ, max(0, len(bars) - MOST_BARS))


def _drawn(
    bars: Sequence[Bar], ends: Sequence[datetime], start: datetime, whole_s: float
) -> Iterator[Drawn]:
    for bar, end in zip(bars, ends, strict=False):
        offset_s = (bar.start - start).total_seconds()
        took_s = (end - bar.start).total_seconds()
        width = max(LEAST, round(SCALE * max(0.0, took_s) / whole_s))
        left = min(round(SCALE * offset_s / whole_s), SCALE - LEAST)
        is_open = bar.end is None or bar.kind == "event"
        yield Drawn(
            bar,
            offset_s,
            None if is_open else max(0.0, took_s),
            left,
            min(width, SCALE - left),
            backwards=took_s < 0,
        )

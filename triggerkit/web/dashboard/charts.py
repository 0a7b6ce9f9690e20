"""Charts: lines drawn as SVG on the server, which a script draws anew to be looked into."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from triggerkit.consumers.lag_history import read_captured, read_lag
from triggerkit.runs.admin.rolled import Activity, read_steps
from triggerkit.runs.keeper.rollups import (
    ALL,
    MINUTE_S,
    QUARTER_S,
    Step,
    floor_to,
    percentile_s,
)
from triggerkit.state.reading import Reads, together
from triggerkit.web.dashboard.page import Asked
from triggerkit.web.dashboard.values import milliseconds

#: The windows that can be looked at, by name: their duration and the seconds of a step.
WINDOWS = {"1h": (timedelta(hours=1), MINUTE_S), "24h": (timedelta(hours=24), QUARTER_S)}

#: The size of a drawing, and of a spark.
WIDTH, HEIGHT = 600, 100
SPARK_WIDTH, SPARK_HEIGHT, SPARK_HOURS = 96, 18, 24

Values = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart, its last known value as text, and its path in the drawing."""

    name: str
    values: Values
    now: str
    path: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines on one scale of time."""

    title: str
    unit: str
    at: Sequence[int]
    lines: Sequence[Line]
    top: str
    empty: str

    @property
    def data(self) -> str:
        """Return what the script draws."""
        series = [{"name": line.name, "values": line.values} for line in self.lines]
        return json.dumps({"at": self.at, "unit": self.unit, "series": series})

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is known."""
        return not any(value for line in self.lines for value in line.values)


def window_of(asked: Asked) -> str:
    """Return the window that is looked at."""
    window = asked.query.get("window", "1h")
    return window if window in WINDOWS else "1h"


async def charts_of(state: Reads, window: str, task: str = ALL) -> list[Chart]:
    """Return the charts of a window: of all that goes on, or of one task's runs."""
    duration, step_s = WINDOWS[window]
    now = datetime.now(UTC)
    since = floor_to(now - duration, step_s)
    async with together(state) as reads:
        steps, (lag, captured) = await asyncio.gather(
            read_steps(reads, step_s, task, since), _of_log(reads, step_s, since, task)
        )
    count = int((floor_to(now, step_s) - since).total_seconds()) // step_s
    at = [since + timedelta(seconds=n * step_s) for n in range(count)]

    def rate(of: Callable[[Step], int]) -> Values:
        return [of(steps[moment]) / step_s if moment in steps else 0 for moment in at]

    def latency(share: float) -> Values:
        return [percentile_s(steps[m].latencies, share) if m in steps else None for m in at]

    def failed() -> Values:
        return [steps[moment].failed if moment in steps else 0 for moment in at]

    found = [
        _chart("Throughput", "/s", at, {
            **({"changes": [captured.get(m, 0) / step_s for m in at]} if task == ALL else {}),
            "runs accepted": rate(lambda step: step.accepted),
            "runs completed": rate(lambda step: step.completed),
        }, "No run was accepted"),
        _chart("Commit to done", "s", at, {"p50": latency(0.5), "p99": latency(0.99)},
               "No run was completed"),
        _chart("Failed runs", "", at, {"failed": failed()}, "None failed"),
    ]  # fmt: skip
    if task == ALL:
        worst = {"furthest behind": [lag[m][1] if m in lag else None for m in at]}
        found.insert(2, _chart("Lag of consumers", "s", at, worst, "None was behind"))
    return found


async def _of_log(
    state: Reads, step_s: int, since: datetime, task: str
) -> tuple[Mapping[datetime, tuple[int, float]], Mapping[datetime, int]]:
    """Return the lag and the captured changes, which are of no one task."""
    if task != ALL:
        return {}, {}
    return await asyncio.gather(read_lag(state, step_s, since), read_captured(state, step_s, since))


def spark(activity: Activity | None, now: datetime) -> Mapping[str, Any] | None:
    """Return the bars of a day by the hour: a path for all runs and one for those that failed."""
    if activity is None or not activity.total.accepted:
        return None
    last = floor_to(now, 3600)
    hours = [last - timedelta(hours=n) for n in reversed(range(SPARK_HOURS))]
    counts = [activity.hours.get(hour, (0, 0)) for hour in hours]
    top = max(1, *(accepted for accepted, _ in counts))
    width = SPARK_WIDTH // SPARK_HOURS

    def bars(values: Sequence[int]) -> str:
        parts = []
        for place, value in enumerate(values):
            if value:
                height = max(1, round(value / top * SPARK_HEIGHT))
                parts.append(f"M{place * width} {SPARK_HEIGHT}v-{height}h{width - 1}v{height}z")
        return "".join(parts)

    return {
        "all": bars([accepted for accepted, _ in counts]),
        "failed": bars([failed for _, failed in counts]),
        "label": f"{activity.total.accepted:,} runs in 24 h, {activity.total.failed:,} failed",
    }


def _chart(
    title: str, unit: str, at: Sequence[datetime], values: Mapping[str, Values], empty: str
) -> Chart:
    top = max((value or 0.0 for line in values.values() for value in line), default=0.0)
    lines = [
        Line(name, line, _now(line, unit), _path(line, top or 1.0)) for name, line in values.items()
    ]
    seconds = [int(moment.timestamp()) for moment in at]
    return Chart(title, unit, seconds, lines, _text(top, unit), empty)


def _path(values: Values, top: float) -> str:
    """Return a path; where nothing is known it is interrupted."""
    parts, goes_on = [], False
    for place, value in enumerate(values):
        if value is None:
            goes_on = False
            continue
        is_alone = not goes_on and (place + 1 == len(values) or values[place + 1] is None)
        x = round(place * WIDTH / max(1, len(values) - 1), 1)
        y = round(HEIGHT - value / top * (HEIGHT - 4) - 1, 1)
        parts.append(f"{'L' if goes_on else 'M'}{x:g} {y:g}{'h1' if is_alone else ''}")
        goes_on = True
    return "".join(parts)


def _now(values: Values, unit: str) -> str:
    known = [value for value in values if value is not None]
    return _text(known[-1], unit) if known else "unknown"


def _text(value: float, unit: str) -> str:
    if unit == "s":
        return milliseconds(value)
    return f"{value:,.3g}{unit}" if unit else f"{value:,.0f}"

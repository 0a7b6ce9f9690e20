"""The figures of the project's README; `python -m bench.readme` writes them from results.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bench.figures import shown

PAGE = Path(__file__).parent.parent / "README.md"
RESULTS = Path(__file__).parent / "results.json"

#: The line above the table; what is around it is written by hand.
HEAD = "| what | figure | baseline | command |\n| --- | --- | --- | --- |\n"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. In the texts, `{…}` is the figure of that name in results.json."""

    benchmark: str
    what: str
    figure: str
    baseline: str
    #: What measures it, if that is no benchmark of `python -m bench`.
    command: str | None = None


ROWS = (
    Row(
        "T1",
        "changes per second, from the commit to the batch task's completed run",
        "{committed → batch task's run completed}",
        "{limit: bare receive + decode + JSON}: one process that only receives, decodes and "
        "writes JSON",
    ),
    Row(
        "T1",
        'the same with `via="direct"`',
        "{directly: committed → batch task's run completed}",
        "{directly: limit: bare receive + decode + JSON}: the same limit",
    ),
    Row(
        "T3",
        "runs per second of a task that does nothing, each durable in Postgres",
        "{one run per trigger, queued before}",
        "{Dramatiq, 2 x 8, queued before it starts}: plain Dramatiq's own worker, 2 processes "
        "of 8 threads",
    ),
    Row(
        "T4",
        "milliseconds from the commit to the task's first line, on an idle system",
        "median {commit → task entered, every 0.5 to 1.5 s: p50}, p99 {p99}",
        "plain Dramatiq, from `send`: median {Dramatiq send → entered: p50}, p95 {Dramatiq p95}",
    ),
    Row(
        "T8",
        "milliseconds of the dashboard's slowest page at p95, with 1,000,000 runs and as many "
        "changes in the log",
        "{slowest page: p95}",
        "the median page: {median of all pages' p95}",
    ),
    Row(
        "long",
        "{changes} changes among {faults} faults, in {runs} runs: processes and databases killed, "
        "lines between machines cut, clocks set, receivers that misbehave",
        "{lost} lost, {out of order} out of order, {pushed twice} % pushed twice, "
        "{executed twice} % executed twice; flows again after {recovery p95} s at p95",
        "{throughput while faulted} % of the changes a second without faults",
        "make soak-long",
    ),
)


def table(results: Mapping[str, Any]) -> str:
    """Return the table, its figures in three digits; what was not measured yet is not in it."""
    measured = [row for row in ROWS if row.benchmark in results]
    return HEAD + "".join(_line(row, results[row.benchmark]) for row in measured)


def _line(row: Row, result: Mapping[str, Any]) -> str:
    cells = [f"{row.benchmark}: {row.what}", row.figure, row.baseline]
    # The first of a name counts: T4's figures come again at another pace.
    for figure in result["figures"]:
        cells = [c.replace("{" + figure["what"].strip() + "}", _digits(figure)) for c in cells]
    if row.command is not None:
        cells.append(f"`{row.command}`")
        return "| " + " | ".join(cells) + " |\n"
    scale = "" if result["run"]["scale"] == "normal" else f" --{result['run']['scale']}"
    cells.append(f"`.venv/bin/python -m bench {row.benchmark}{scale}`")
    return "| " + " | ".join(cells) + " |\n"


def _digits(figure: Mapping[str, Any]) -> str:
    return shown(float(f"{figure['value']:.3g}"))


def written(page: str) -> str:
    """Return the README with the table as it should be."""
    before, _, after = page.partition(HEAD)
    rest = after[after.index("\n\n") :] if "\n\n" in after else "\n"
    return before + table(orjson.loads(RESULTS.read_bytes())).rstrip("\n") + rest


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))

"""`python -m bench [T1 T4 …] [--quick | --full] [--output FILE]`."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from bench.figures import Report, Scale, shown
from bench.machine import load_average, machine, versions
from bench.targets import (
    backfill,
    dashboard,
    events,
    growth,
    latency,
    memory,
    numbers,
    pull,
    runs,
    source,
    startup,
    throughput,
    waste,
)

#: Where a whole run keeps its results.
RESULTS = Path(__file__).parent / "results.json"

BENCHMARKS: dict[str, Callable[[Scale], Report]] = {
    "T1": throughput.run,
    "T2": backfill.run,
    "T3": runs.run,
    "T4": latency.run,
    "T5": source.run,
    "T6": memory.run,
    "T7": startup.run,
    "T8": dashboard.run,
    "T9": growth.run,
    "T10": waste.run,
    "T11": numbers.run,
    "T12": events.run,
    "pull": pull.run,
}

MARKS = {True: "[green]met[/]", False: "[red]not met[/]", None: ""}

# A log is wide enough for the table; a terminal says how wide it is.
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 100)


def main(arguments: Sequence[str]) -> int:
    """Measure and print; 1 when a benchmark could not be measured, whatever the figures are."""
    options = _options(arguments)
    scale = Scale("quick" if options.quick else "full" if options.full else "normal")
    names = options.names or list(BENCHMARKS)
    run = {
        "command": " ".join(["python -m bench", *arguments]),
        "scale": scale.name,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
    }
    output = options.output or (
        RESULTS if names == list(BENCHMARKS) and not options.quick else None
    )
    reports: dict[str, Report | None] = {}
    for name in names:
        reports[name], result = _measure(name, scale)
        if output is not None:
            # At once: what was measured is not lost with what comes after it.
            _keep(output, {name: {"run": run, **result}})
    _print_table(reports)
    if output is not None:
        console.print(f"written to {output}", markup=False)
    return 1 if None in reports.values() else 0


def _keep(output: Path, results: dict[str, Any]) -> None:
    """Write `results` to `output`; what was not measured anew stays there as it is."""
    kept = orjson.loads(output.read_bytes()) if output.exists() else {}
    output.write_bytes(orjson.dumps(kept | results, option=orjson.OPT_INDENT_2) + b"\n")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small: shows that it works")
    size.add_argument("--full", action="store_true", help="T1 with a million changes")
    parser.add_argument("--output", type=Path, help=f"default of a whole run: {RESULTS.name}")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - BENCHMARKS.keys():
        parser.error(f"unknown benchmark {min(unknown)}; known are {', '.join(BENCHMARKS)}")
    return options


def _measure(name: str, scale: Scale) -> tuple[Report | None, dict[str, Any]]:
    """One benchmark's report, None when it failed, and what is kept of it."""
    console.print(f"{name}: measuring …")
    before = load_average()
    try:
        report = BENCHMARKS[name](scale)
    except Exception as error:
        traceback.print_exc()
        return None, {"error": f"{type(error).__name__}: {error}"}
    return report, {
        "load_average": {"before": before, "after": load_average()},
        "figures": [figure.as_json() for figure in report.figures],
        "raw": report.raw,
    }


def _print_table(reports: dict[str, Report | None]) -> None:
    table = Table("", "what", "figure", "target", "", box=None, pad_edge=False)
    table.columns[2].justify = "right"
    for name, report in reports.items():
        if report is None:
            table.add_row(
                name, "could not be measured; its error is above", "", "", "[red]failed[/]"
            )
            continue
        for figure in report.figures:
            value = f"{shown(figure.value)} {figure.unit}"
            table.add_row(name, figure.what, value, str(figure.target or ""), MARKS[figure.met])
    console.print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

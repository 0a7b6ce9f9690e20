"""`python -m tests.faults.long [--events N] [--faults N] [--seed N]`: the long figure.

A million changes among 200 faults, or as many as are given; it takes one to two hours by default,
and 20,000 among 8 a few minutes. It prints what it counts, and adds the run to the output, from
which `python -m bench.readme` writes the README's row.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from bench.machine import machine, versions
from tests.faults.long.figures import figures_of
from tests.faults.long.run import Figures, run
from tests.faults.machines.clocks import faketime
from tests.faults.machines.network import CannotMakeMachines

#: The name of its entry in the output.
NAME = "long"


def main(arguments: list[str]) -> int:
    """Run once; 1 if anything was found, or it could not run."""
    options = _options(arguments)
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"{options.events:,} changes, {options.faults} faults, seed {seed}", flush=True)
    if faketime() is None:
        print("no clock is set: install Debian's faketime")
    with tempfile.TemporaryDirectory(prefix="triggerkit-long-", dir=options.folder) as folder:
        try:
            figures = run(Path(folder), options.events, options.faults, seed)
        except CannotMakeMachines as error:
            print(error)
            return 1
    tell(figures)
    if options.output is not None:
        keep(options.output, figures)
    return 1 if figures.lost or figures.out_of_order or figures.other_violations else 0


def tell(figures: Figures) -> None:
    """Print what was counted."""
    share = 100 * figures.pushed_twice / max(1, figures.deliveries)
    executed = 100 * figures.executed_twice / max(1, figures.effects)
    ratio = 100 * figures.faulted_per_s / figures.quiet_per_s
    print(
        f"seed {figures.seed}: {figures.events:,} changes and {figures.faults} faults "
        f"in {figures.seconds:,.0f} s\n"
        f"lost {figures.lost}, out of order {figures.out_of_order}, "
        f"other findings {figures.other_violations}\n"
        f"pushed twice {figures.pushed_twice:,} of {figures.deliveries:,} ({share:.3f} %), "
        f"executed twice {figures.executed_twice:,} of {figures.effects:,} ({executed:.3f} %)\n"
        f"recovery: median {figures.recovery_p50_s:.1f} s, p95 {figures.recovery_p95_s:.1f} s, "
        f"longest {figures.recovery_max_s:.1f} s\n"
        f"changes a second: {figures.quiet_per_s:,.0f} before the first fault, "
        f"{figures.faulted_per_s:,.0f} among them ({ratio:.0f} %)\n"
        f"processes that ended by themselves: {figures.ended_by_themselves}"
    )
    for violation in figures.violations:
        print(f"  {violation}")


def keep(output: Path, figures: Figures) -> None:
    """Add the run to those of the file that are of the same size, and count them together."""
    results: dict[str, Any] = orjson.loads(output.read_bytes()) if output.exists() else {}
    runs = [
        one
        for one in results.get(NAME, {}).get("raw", {}).get("runs", [])
        if one["faults"] == figures.faults and one["seed"] != figures.seed
    ]
    runs.append(figures.as_json())
    results[NAME] = {
        "run": {
            "command": "make soak-long",
            "scale": "normal",
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions(),
        },
        "load_average": {"after": list(os.getloadavg())},
        "figures": [figure.as_json() for figure in figures_of(runs)],
        "raw": {"runs": runs},
    }
    output.write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2) + b"\n")


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.long")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--folder", type=Path, help="where its data are meanwhile, about 20 GB")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

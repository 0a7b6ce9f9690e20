"""Cut all pairs in all directions, and write the table of `docs/faults.md`.

`python -m tests.faults.machines` runs all of it, which takes half an hour. Names of pairs run those
alone: their rows are written anew, and the others stay as they are.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests import ROOT
from tests.faults.machines import kafka_line
from tests.faults.machines.clocks import faketime
from tests.faults.machines.network import CannotMakeMachines
from tests.faults.machines.partitions import CUT_S, PAIRS, Outcome, run_pair

PAGE = ROOT / "docs" / "faults.md"

#: The lines above the rows; what is around the table is written by hand.
HEAD = (
    "| between | both directions | requests dropped | answers dropped | messages | sent twice |\n"
    "| --- | --- | --- | --- | --- | --- |\n"
)


#: The runs by their names: each takes a folder.
RUNS: dict[str, Callable[[Path], Outcome]] = {
    **{str(pair): partial(run_pair, pair=pair) for pair in PAIRS},
    kafka_line.NAME: kafka_line.run_kafka,
}


def row(outcome: Outcome) -> str:
    """The line of a pair."""
    took = outcome.recovered_s
    seconds = " | ".join(f"{took[direction]:.1f} s" for direction in ("both", "there", "back"))
    judged = outcome.judged
    return f"| {outcome.pair} | {seconds} | {judged.messages:,} | {judged.twice} |\n"


def written(page: str, outcomes: list[Outcome]) -> str:
    """Return the page with the rows of `outcomes`, in the order of the pairs."""
    before, _, after = page.partition(HEAD)
    old, separator, rest = after.partition("\n\n")
    rows = {line.split(" | ")[0].removeprefix("| "): f"{line}\n" for line in old.splitlines()}
    rows |= {outcome.pair: row(outcome) for outcome in outcomes}
    lines = [rows[name] for name in RUNS if name in rows]
    return before + HEAD + "".join(lines).rstrip("\n") + separator + rest


def main(names: list[str]) -> int:
    """Run them one after the other; 1 if there was anything to find."""
    if faketime() is None:
        print("the clocks are not apart: install Debian's faketime")
    failed = []
    for name, run in RUNS.items():
        if names and name not in names:
            continue
        with tempfile.TemporaryDirectory(prefix="triggerkit-machines-") as folder:
            try:
                outcome = run(Path(folder))
            except CannotMakeMachines as error:
                print(error)
                return 1
            except AssertionError as error:
                print(f"{name}: {error}")
                failed.append(name)
                continue
        print(row(outcome), end="", flush=True)
        PAGE.write_text(written(PAGE.read_text(), [outcome]))
    print(f"cut for {CUT_S:g} s each; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

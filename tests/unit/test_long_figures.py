"""The figures of long runs: losses are added up, and of the rest the worst run counts."""

from __future__ import annotations

from typing import Any

from bench.readme import table
from tests.faults.long.figures import figures_of
from tests.faults.long.run import percentile

RUN: dict[str, Any] = {
    "seed": 1,
    "events": 1000,
    "faults": 10,
    "seconds": 60.0,
    "lost": 0,
    "out_of_order": 0,
    "deliveries": 2000,
    "pushed_twice": 2,
    "effects": 1000,
    "executed_twice": 0,
    "recovery_p95_s": 4.0,
    "recovery_max_s": 5.0,
    "quiet_per_s": 100.0,
    "faulted_per_s": 80.0,
}

WORSE = {
    **RUN,
    "seed": 2,
    "lost": 3,
    "pushed_twice": 20,
    "recovery_p95_s": 9.0,
    "faulted_per_s": 60.0,
}


def test_runs_are_counted_together() -> None:
    values = {figure.what: figure.value for figure in figures_of([RUN, WORSE])}
    assert (values["runs"], values["changes"], values["faults"]) == (2, 2000, 20)
    assert (values["lost"], values["out of order"]) == (3, 0)
    assert values["pushed twice"] == 1.0
    assert values["recovery p95"] == 9.0
    assert values["throughput while faulted"] == 60.0


def test_the_readme_tells_them_with_the_command_that_made_them() -> None:
    figures = [figure.as_json() for figure in figures_of([RUN])]
    results = {"long": {"run": {"scale": "normal"}, "figures": figures}}
    row = table(results).splitlines()[-1]
    assert "1,000 changes among 10 faults, in 1 runs" in row
    assert "0 lost, 0 out of order, 0.1 % pushed twice" in row
    assert row.endswith("| `make soak-long` |")


def test_a_percentile_is_a_value_that_was_there() -> None:
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 95) == 95.0
    assert percentile([], 95) == 0.0

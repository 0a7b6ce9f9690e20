"""T1 to an endpoint that is nobody's task: the route that Debezium's engine posts to, no runs."""

from __future__ import annotations

from bench.figures import Figure, Report, Target, middle
from bench.items import SCHEMA, insert
from bench.processes import Program, wait_until
from bench.project import ROOT, Connection, connect, dev, dev_database, work_folder, write_project
from bench.rivals.debezium import Debezium
from bench.rivals.receiver import taken_at

#: Most seconds one round may take, and changes before the first.
ROUND_S = 300.0
WARM_UP = 5000

_CONSUMER = """
[endpoints.foreign]
url = "{url}"

[consumers.foreign]
kind = "changes"
tables = ["public.items"]
endpoint = "foreign"
batch_size = 500
"""


def measure(count: int, rounds: int, debezium: Debezium) -> Report:
    """Measure the product and Debezium's engine in turns, each to a bare route of its own."""
    environment = {"PYTHONPATH": str(ROOT)}
    with work_folder() as folder, Program(folder, ["bench.rivals.receiver"], environment) as route:
        url = f"http://127.0.0.1:{route.printed().split()[0]}/"
        project = folder / "project"
        write_project(project, "", SCHEMA)
        with (project / "triggerkit.toml").open("a") as file:
            file.write(_CONSUMER.format(url=url))
        with dev(project), connect(dev_database(project)) as connection:
            _posted(connection, url, WARM_UP)
            rates = [
                {
                    "debezium": debezium.changes_per_s(count),
                    "product": _posted(connection, url, count),
                }
                for _ in range(rounds)
            ]
    ratio = middle([each["product"] / each["debezium"] for each in rates])
    figures = [
        Figure("committed → posted", middle([r["product"] for r in rates]), "changes/s"),
        Figure("Debezium's engine", middle([r["debezium"] for r in rates]), "changes/s"),
        Figure("ratio to Debezium's engine", ratio, "x", Target("≥", 1.7)),
    ]
    return Report(figures, {"changes": count, "batch_size": 500, "changes_per_s": rates})


def _posted(connection: Connection, url: str, count: int) -> float:
    """Insert `count` rows; changes a second from the first commit to the last batch's post."""
    connection.execute("CHECKPOINT")
    expected = taken_at(url)["messages"] + count
    first_commit = insert(connection, count)
    wait_until(lambda: taken_at(url)["messages"] >= expected, ROUND_S, "all were posted", 0.25)
    return count / (taken_at(url)["last_at"] - first_commit)

"""T7: seconds from `triggerkit dev` to its line `ready`, on a project that ran before."""

from __future__ import annotations

from bench.figures import Figure, Report, Scale, Target, middle
from bench.posts import reference_project
from bench.processes import wait_until
from bench.project import connect, dev, dev_database, one, work_folder

#: Seconds the sample posts may take to get their embeddings.
BACKFILL_S = 120.0

_OPEN = """
SELECT (SELECT count(*) FROM triggerkit.backfills WHERE state = 'active')
    + (SELECT count(*) FROM triggerkit.runs WHERE finished_at IS NULL)
"""


def run(scale: Scale) -> Report:
    """Start the reference project once, let it finish its work, then start it again."""
    times = scale.pick(2, 5)
    with work_folder() as folder:
        project = reference_project(folder / "project")
        with dev(project) as first:
            first_s = first.started_s
            with connect(dev_database(project)) as connection:
                wait_until(
                    lambda: bool(one(connection, _OPEN) == 0), BACKFILL_S, "nothing to do", 0.2
                )
        again_s = []
        for _ in range(times):
            with dev(project) as program:
                again_s.append(program.started_s)
    figures = [
        Figure("dev → ready, first start", first_s, "s"),
        Figure("dev → ready, next starts", middle(again_s), "s", Target("≤", 3)),
    ]
    return Report(figures, {"first_s": first_s, "next_s": again_s})

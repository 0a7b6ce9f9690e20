"""T2: a backfill of posts to embeddings in pgvector, beside pgai and the plain loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from bench.figures import Figure, Report, Scale, Target, middle
from bench.posts import FakeApi, fake_api, make_posts, reference_project
from bench.processes import Program, run_to_end, wait_until
from bench.project import ROOT, connect, one, servers, work_folder
from bench.rivals.own_environment import NotInstalled
from bench.rivals.pgai_vectorizer import Pgai

#: Most seconds one backfill may take.
BACKFILL_S = 600.0

#: The API's time to answer with which all are measured once more, in milliseconds.
LATENCY_MS = 50

#: Embeds the posts of a database; returns the seconds it took. The folder is its own.
Contestant = Callable[[Path, str, dict[str, str], FakeApi], float]

_EMBEDDED = "SELECT count(*) FROM post_embeddings"
_STARTED = "SELECT extract(epoch FROM min(created_at))::float FROM triggerkit.backfills"
_COMPLETED = """
SELECT coalesce(sum(items), 0) FROM triggerkit.runs WHERE status = 'completed'
"""
_FINISHED = "SELECT extract(epoch FROM max(finished_at))::float FROM triggerkit.runs"


def run(scale: Scale) -> Report:
    """Measure the product, the plain loop and pgai in turns, each on new servers."""
    count, rounds = scale.pick(5000, 100_000), scale.pick(1, 3)
    # Fewer for pgai, whose rate does not depend on it: more would only take minutes.
    pgai_count = scale.pick(5000, 20_000)
    contestants: dict[str, tuple[Contestant, int]] = {
        "product": (_product, count),
        "plain loop": (_plain_loop, count),
    }
    notes: dict[str, str] = {}
    try:
        contestants["pgai"] = partial(_pgai, Pgai.install()), pgai_count
    except NotInstalled as error:
        notes["pgai"] = str(error)
    at_once = _in_turns(contestants, rounds, 0)
    late = _in_turns(contestants, 1, LATENCY_MS) if scale.name != "quick" else {}
    return _report({name: n for name, (_, n) in contestants.items()}, at_once, late, notes)


def _in_turns(
    contestants: Mapping[str, tuple[Contestant, int]], rounds: int, latency_ms: int
) -> dict[str, list[float]]:
    """Posts a second of each contestant in each round."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, (embed, count) in contestants.items():
            with (
                work_folder() as folder,
                servers(folder / "state") as settings,
                fake_api(folder, latency_ms) as api,
            ):
                dsn = settings["DATABASE_URL"]
                make_posts(dsn, count)
                rates[name].append(count / embed(folder, dsn, settings, api))
                inputs = api.counts()["inputs"]
                assert inputs == count, f"{name} asked for {inputs} embeddings of {count} posts"
    return rates


def _report(
    counts: dict[str, int],
    at_once: dict[str, list[float]],
    late: dict[str, list[float]],
    notes: dict[str, str],
) -> Report:
    figures = [Figure("backfilled posts, the whole way", middle(at_once["product"]), "posts/s")]
    for name, limit in (("pgai", 6), ("plain loop", 1.2)):
        if name in notes:
            # Not a number: nothing was measured.
            figures.append(Figure(f"{name}: {notes[name]}", float("nan"), "posts/s"))
            continue
        pairs = zip(at_once["product"], at_once[name], strict=True)
        figures += [
            Figure(name, middle(at_once[name]), "posts/s"),
            Figure("  ours by it", middle([a / b for a, b in pairs]), "x", Target("≥", limit)),
        ]
    figures += [
        Figure(f"{name}, API of {LATENCY_MS} ms", middle(rates), "posts/s")
        for name, rates in late.items()
    ]
    raw = {
        "posts": counts,
        "posts_per_s": at_once,
        f"posts_per_s_with_{LATENCY_MS}_ms": late,
        "not_measured": notes,
    }
    return Report(figures, raw)


def _product(folder: Path, dsn: str, settings: dict[str, str], api: FakeApi) -> float:
    """From the backfill's own start to the last run's completion."""
    project = reference_project(folder / "project")
    arguments = ["triggerkit", "dev", "--quiet", "--port", "0"]
    with connect(dsn) as connection:
        count = one(connection, "SELECT count(*) FROM posts")
        with Program(project, arguments, {**settings, **api.settings}):
            wait_until(
                lambda: bool(one(connection, _COMPLETED) >= count), BACKFILL_S, "all embedded", 0.2
            )
            embedded = one(connection, _EMBEDDED)
            assert embedded == count, f"{embedded} of {count} posts have an embedding"
            return float(one(connection, _FINISHED) - one(connection, _STARTED))


def _plain_loop(folder: Path, dsn: str, settings: dict[str, str], api: FakeApi) -> float:  # noqa: ARG001
    """From its first read to its last commit."""
    variables = {**api.settings, "PYTHONPATH": str(ROOT)}
    return float(run_to_end(folder, ["bench.rivals.plain_loop", dsn], variables))


def _pgai(pgai: Pgai, folder: Path, dsn: str, settings: dict[str, str], api: FakeApi) -> float:  # noqa: ARG001
    """From its first request to its command's end: its start is not counted."""
    with connect(dsn) as connection:
        count = one(connection, "SELECT count(*) FROM posts")
    pgai.prepare(dsn, api.url)
    ended = pgai.work(dsn)
    assert pgai.count(dsn) == count, f"pgai made {pgai.count(dsn)} embeddings of {count} posts"
    return ended - float(api.counts()["first_at"])

"""T10: what the embeddings API is asked for, by what there is to embed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.figures import Figure, Report, Scale, Target
from bench.posts import FakeApi, add_posts, fake_api, make_posts, reference_project
from bench.processes import Program, run_to_end, wait_until
from bench.project import Connection, connect, one, servers, work_folder
from triggerkit.failpoints import VARIABLE

#: Only for commands that run on this machine, as `serve` would ask of anybody.
SECRET = "a-secret-of-the-benchmarks-only"

#: Most seconds a step may take; a dead worker's runs come back after its lease.
STEP_S = 300.0

#: Posts inserted last: they are of every partition of the log, so what came before is delivered.
LAST = 500

#: One in so many posts gets another text.
RETITLED = 10

CONSUMER = "create_embedding_for_post"

_DONE = """
SELECT NOT EXISTS (SELECT FROM triggerkit.backfills WHERE state = 'active')
    AND NOT EXISTS (SELECT FROM triggerkit.runs WHERE finished_at IS NULL)
    AND NOT EXISTS (
        SELECT FROM posts p LEFT JOIN post_embeddings e ON e.post_id = p.id
        WHERE e.content_hash IS DISTINCT FROM
            encode(sha256(convert_to(p.title || E'\\n\\n' || p.body, 'UTF8')), 'hex'))
"""

_EMBEDDED = "SELECT count(*) FROM post_embeddings"


def run(scale: Scale) -> Report:
    """Embed posts while they change and processes die, and count what was paid for."""
    count = scale.pick(2000, 20_000)
    with work_folder() as folder, servers(folder / "state") as settings, fake_api(folder) as api:
        settings |= {
            **api.settings,
            "TRIGGERKIT_WEBHOOK_SECRET": SECRET,
            "TRIGGERKIT_PORT": "8396",
        }
        project = reference_project(folder / "project")
        make_posts(settings["DATABASE_URL"], 1)
        run_to_end(project, ["triggerkit", "apply"], settings)
        with (
            connect(settings["DATABASE_URL"]) as connection,
            Program(project, ["triggerkit", "serve"], settings),
        ):
            waste = Waste(project, settings, connection, api, count)
            paid = waste.redelivered()
            killed = waste.killed()
    figures = [
        Figure(
            "inputs paid by distinct texts, with redeliveries",
            paid["inputs"] / paid["distinct"],
            "x",
            Target("≤", 1),
        ),
        Figure("  with a SIGKILL amid requests", killed["inputs"] / killed["distinct"], "x"),
    ]
    return Report(figures, {"posts": count, "redelivered": paid, "killed": killed})


class Waste:
    """The reference project with `serve` running; `stream` and `worker` come and go."""

    def __init__(
        self,
        project: Path,
        settings: dict[str, str],
        connection: Connection,
        api: FakeApi,
        count: int,
    ) -> None:
        self._project = project
        self._settings = settings
        self._connection = connection
        self._api = api
        self._count = count

    def redelivered(self) -> dict[str, Any]:
        """Paid for a backfill, updates of texts and of other columns, and a second backfill.

        The worker is killed once, its effect written and its outcome not; so is the stream, amid
        deliveries.
        """
        self._api.reset()
        with self._program("stream") as stream:
            self._killed_after_its_effect()
            with self._program("worker"):
                add_posts(self._connection, self._count - 1, 2)
                self._update()
                stream.kill()
                with self._program("stream"):
                    add_posts(self._connection, LAST, self._count + 1)
                    self._until_done()
                    run_to_end(
                        self._project,
                        ["triggerkit", "backfill", "start", CONSUMER],
                        self._settings,
                    )
                    self._until_done()
        return self._paid()

    def killed(self) -> dict[str, Any]:
        """Paid for new posts when the worker is killed amid its requests: some answers are lost."""
        self._api.reset()
        with self._program("stream"):
            with self._program("worker") as worker:
                add_posts(self._connection, self._count, 2 * self._count)
                wait_until(
                    lambda: self._api.counts()["inputs"] > self._count // 3,
                    STEP_S,
                    "a third",
                    0.001,
                )
                worker.kill()
            with self._program("worker"):
                self._until_done()
        return self._paid()

    def _program(self, command: str) -> Program:
        return Program(self._project, ["triggerkit", command], self._settings)

    def _killed_after_its_effect(self) -> None:
        """Of the only run there is, so that no other one's answer is lost with it."""
        fired = self._project / "fired"
        fail_point = {VARIABLE: f"effect-done={fired}"}
        with Program(self._project, ["triggerkit", "worker"], {**self._settings, **fail_point}):
            wait_until(fired.exists, STEP_S, "a run's effect is done", 0.01)
        assert one(self._connection, _EMBEDDED) > 0

    def _update(self) -> None:
        """Touch every post, and give some of them another text, while they are embedded."""
        for remainder in range(RETITLED):
            self._connection.execute(
                "UPDATE posts SET author = author || %s, updated_at = now() WHERE id %% %s = %s",
                [str(remainder), RETITLED, remainder],
            )
        self._connection.execute(
            "UPDATE posts SET title = title || ' again', updated_at = now() WHERE id %% %s = 0",
            [RETITLED],
        )

    def _until_done(self) -> None:
        wait_until(lambda: bool(one(self._connection, _DONE)), STEP_S, "all embedded", 0.25)

    def _paid(self) -> dict[str, Any]:
        counts = self._api.counts()
        return {name: counts[name] for name in ("requests", "inputs", "distinct")}

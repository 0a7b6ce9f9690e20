"""The reference project as its user sees it, from the first start to a kill."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any
from urllib.request import HTTPCookieProcessor, build_opener

import orjson
import pytest

from tests.acceptance.processes import family, mentioning, running
from tests.acceptance.project import ReferenceProject, eventually, run_command
from tests.acceptance.reference_posts import (
    OUT_OF_STEP,
    PAID_INPUTS,
    Connection,
    content_hash,
    insert_post,
    message,
    one,
    stored_hash,
    unfinished_runs,
    wait_for_run,
    wait_for_text,
)

#: The route of the reference task.
ROUTE = "/api/create-embedding-for-post"

#: The insert of the guide this product follows, word for word.
GUIDES_INSERT = """
insert into
posts (title, body, author)
values (
    'The Future of AI',
    'An insightful look into how artificial intelligence is shaping the future of technology and society.',
    'Alice H Johnson'
)
returning id
"""  # noqa: E501 - as it stands there


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReferenceProject]:
    """The reference project in a new folder, its `dev` ready."""
    if find_spec("wordllama") is None:
        pytest.skip("no embedding model has a wheel for this Python: it would need OpenAI's API")
    project = ReferenceProject(tmp_path_factory.mktemp("reference"))
    try:
        project.start()
        yield project
    finally:
        project.dev.close()


@pytest.fixture
def database(project: ReferenceProject) -> Iterator[Connection]:
    """A connection to the project's database."""
    with project.connect() as connection:
        yield connection


def test_every_sample_post_gets_its_embedding(
    project: ReferenceProject, database: Connection
) -> None:
    posts = one(database, "SELECT count(*) FROM posts")
    eventually(lambda: one(database, OUT_OF_STEP) == 0, 60, "an embedding for each post")
    assert posts > 1000
    assert one(database, "SELECT count(*) FROM post_embeddings") == posts


def test_dev_says_once_that_it_is_ready(project: ReferenceProject) -> None:
    ready = [line for line in project.dev.lines if line.get("event") == "ready"]
    assert len(ready) == 1, project.dev.explain()
    assert ready[0]["ms"] > 0
    link = ready[0]["dashboard"]
    assert link.startswith(f"{project.dev.url}/dashboard/login?once=")
    browser = build_opener(HTTPCookieProcessor())
    with browser.open(link, timeout=20) as page:
        assert "A change that is committed now would run." in page.read().decode()


def test_status_tells_what_runs(project: ReferenceProject) -> None:
    command = project.triggerkit("status", "--json")
    status = orjson.loads(command.stdout)
    assert command.returncode == 0, status
    assert status["ready"] is True
    assert status["url"] == project.dev.url
    assert status["dashboard_url"].startswith(project.dev.url)
    assert status["database_url"].startswith("postgresql://")
    assert status["redis_url"].startswith(("redis://", "unix://"))
    assert status["state_dir"] == str(project.folder / ".triggerkit")
    assert status["tasks"] == ["create_embedding_for_post"]
    processes = {process["name"]: process for process in status["processes"]}
    assert set(processes) == {"stream", "serve", "worker", "postgres", "redis", "embeddings"}
    for process in processes.values():
        assert process["state"] == "running"
        assert process["pid"] in family(project.dev.pid)
    (consumer,) = status["consumers"]
    assert consumer["name"] == "create_embedding_for_post"
    assert consumer["state"] == "active"
    assert consumer["lag_messages"] >= 0
    assert consumer["lag_seconds"] >= 0


def test_an_inserted_post_has_its_embedding_within_a_second(database: Connection) -> None:
    wait_for_text(database, insert_post(database, "A warm-up"), "A warm-up")

    def insert_s() -> float:
        """Seconds from the commit of the guide's insert to its embedding."""
        post_id = one(database, GUIDES_INSERT)
        committed = time.monotonic()
        eventually(lambda: stored_hash(database, post_id), 10, "an embedding of the guide's post")
        return time.monotonic() - committed

    # The best of three: other tests may hold the processors meanwhile.
    assert min(insert_s() for _ in range(3)) < 1.0
    assert one(database, OUT_OF_STEP) == 0


def test_a_changed_body_changes_the_embedding(database: Connection) -> None:
    post_id = insert_post(database, "Bread", "How to bake a loaf of rye.")
    wait_for_text(database, post_id, "Bread", "How to bake a loaf of rye.")
    vector = "SELECT embedding::text FROM post_embeddings WHERE post_id = %s"
    before = one(database, vector, post_id)
    database.execute("UPDATE posts SET body = 'Where the moon is.' WHERE id = %s", [post_id])
    wait_for_text(database, post_id, "Bread", "Where the moon is.")
    assert one(database, vector, post_id) != before


def test_a_changed_author_costs_nothing(database: Connection) -> None:
    post_id = insert_post(database, "The author of this changes")
    wait_for_text(database, post_id, "The author of this changes")

    def paid() -> int:
        return int(one(database, PAID_INPUTS))

    eventually(lambda: unfinished_runs(database) == 0, 10, "quiet")
    before = paid()
    database.execute("UPDATE posts SET author = 'Somebody Else' WHERE id = %s", [post_id])
    # Changes of a row come in order: when this one is done, the one before it was.
    database.execute("UPDATE posts SET title = 'The title, too' WHERE id = %s", [post_id])
    wait_for_text(database, post_id, "The title, too")
    eventually(lambda: unfinished_runs(database) == 0, 10, "quiet")
    assert paid() == before + 1


def test_a_post_without_text_has_no_embedding(database: Connection) -> None:
    post_id = insert_post(database, "Soon to be empty")
    wait_for_text(database, post_id, "Soon to be empty")
    database.execute("UPDATE posts SET title = '' WHERE id = %s", [post_id])
    eventually(lambda: stored_hash(database, post_id) is None, 10, "no embedding")


def test_a_deleted_post_loses_its_embedding(database: Connection) -> None:
    post_id = insert_post(database, "Soon to be gone")
    wait_for_text(database, post_id, "Soon to be gone")
    database.execute("DELETE FROM posts WHERE id = %s", [post_id])
    eventually(lambda: stored_hash(database, post_id) is None, 10, "no embedding")
    assert one(database, OUT_OF_STEP) == 0


def test_runs_are_listed_and_shown(project: ReferenceProject, database: Connection) -> None:
    post_id = insert_post(database, "A post whose run is looked at")
    wait_for_text(database, post_id, "A post whose run is looked at")
    eventually(lambda: unfinished_runs(database) == 0, 10, "the run's end")
    listed = orjson.loads(project.triggerkit("runs", "list", "--json", "--limit", "3").stdout)
    assert len(listed) == 3
    newest = listed[0]
    assert newest["id"].startswith("run_")
    assert newest["task"] == "create_embedding_for_post"
    assert newest["queue"] == "embeddings"
    assert newest["status"] == "completed"
    assert (newest["attempt"], newest["max_attempts"]) == (1, 5)
    assert newest["source"]["table"] == "public.posts"
    shown = orjson.loads(project.triggerkit("runs", "show", newest["id"], "--json").stdout)
    assert shown["payload"]["data"][0]["record"]["id"] == post_id
    assert shown["output"]["embedded"] == 1
    assert [attempt["status"] for attempt in shown["attempts"]] == ["completed"]


def test_the_table_of_runs_shows_ids_that_can_be_given_to_show(project: ReferenceProject) -> None:
    table = project.triggerkit("runs", "list", "--limit", "1").stdout
    run_id = table.splitlines()[1].split()[0]
    assert project.triggerkit("runs", "show", run_id, "--json").returncode == 0


def test_search_finds_by_meaning(project: ReferenceProject) -> None:
    archives = run_command(project.folder, "app.search", "compress files")
    assert archives.returncode == 0, archives.stderr
    assert any(name in archives.stdout for name in ("zlib", "gzip", "bz2", "lzma"))
    numbers = run_command(project.folder, "app.search", "random numbers")
    assert "[random," in numbers.stdout


def test_search_answers_over_http(project: ReferenceProject) -> None:
    answer = project.get("/search?q=compress+files&limit=3")
    assert answer.status == 200
    found = answer.json()
    assert found["query"] == "compress files"
    assert len(found["results"]) == 3
    distances = [hit["distance"] for hit in found["results"]]
    assert distances == sorted(distances)
    assert project.get("/search").status == 400


def test_health_is_served(project: ReferenceProject) -> None:
    assert project.get("/healthz").status == 200
    readiness = project.get("/readyz")
    assert (readiness.status, readiness.json()["missing"]) == (200, [])


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer ", "Basic d3Jvbmc6"])
def test_a_stranger_is_refused_and_starts_nothing(
    project: ReferenceProject, database: Connection, authorization: str | None
) -> None:
    eventually(lambda: unfinished_runs(database) == 0, 10, "quiet")
    before = one(database, "SELECT count(*) FROM triggerkit.runs")
    answer = project.post(ROUTE, message({"id": 1, "title": "no"}), authorization)
    assert answer.status == 401
    assert answer.body == b'{"error":"Unauthorized"}'
    assert answer.headers["www-authenticate"] == "Bearer"
    assert one(database, "SELECT count(*) FROM triggerkit.runs") == before


def test_a_message_of_sequin_starts_a_run(project: ReferenceProject) -> None:
    bearer = f"Bearer {project.secret('TRIGGERKIT_WEBHOOK_SECRET')}"
    sent = message({"id": 900001, "title": "From afar"}, "sequin-1")
    answer = project.post(ROUTE, sent, bearer)
    assert answer.status == 200
    handle = answer.json()
    assert handle["task"] == "create_embedding_for_post"
    run = wait_for_run(project, handle["id"])
    assert run["status"] == "completed"
    assert run["payload"]["data"][0]["record"]["title"] == "From afar"
    again = project.post(ROUTE, sent, bearer)
    assert again.status == 200
    assert again.json() == {**handle, "duplicate": True}


def test_a_batch_of_sequin_starts_a_run(project: ReferenceProject) -> None:
    bearer = f"Bearer {project.secret('TRIGGERKIT_WEBHOOK_SECRET')}"
    sent = {"data": [message({"id": 900002 + n, "title": f"Nr. {n}"}, f"b-{n}") for n in range(3)]}
    answer = project.post(ROUTE, sent, bearer)
    assert answer.status == 200
    handles = answer.json()["data"]
    assert len(handles) == 3
    assert {handle["id"] for handle in handles} == {handles[0]["id"]}
    run = wait_for_run(project, handles[0]["id"])
    assert run["status"] == "completed"
    assert [item["record"]["title"] for item in run["payload"]["data"]] == [
        "Nr. 0", "Nr. 1", "Nr. 2",
    ]  # fmt: skip


def test_a_message_that_does_not_fit_is_refused_by_field(project: ReferenceProject) -> None:
    bearer = f"Bearer {project.secret('TRIGGERKIT_WEBHOOK_SECRET')}"
    answer = project.post(ROUTE, message({"id": "not a number"}), bearer)
    assert answer.status == 422
    assert answer.json()["error"] == "Invalid payload"
    assert answer.json()["detail"][0]["loc"] == ["record", "id"]


def test_a_task_is_triggered_by_command(project: ReferenceProject) -> None:
    payload = orjson.dumps(message({"id": 900010, "title": "By hand"})).decode()
    command = project.triggerkit("trigger", "create_embedding_for_post", "--payload", payload)
    assert command.returncode == 0, command.stderr
    assert wait_for_run(project, orjson.loads(command.stdout)["id"])["status"] == "completed"


def verified(project: ReferenceProject, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit code of `triggerkit verify` and what it found of the reference task."""
    command = project.triggerkit("verify", "--json", *options)
    (found,) = orjson.loads(command.stdout)
    return command.returncode, found


def test_an_embedding_that_is_missing_stale_or_orphaned_is_found_and_fixed(
    project: ReferenceProject, database: Connection
) -> None:
    gone, changed = insert_post(database, "Its embedding goes"), insert_post(database, "Damaged")
    wait_for_text(database, gone, "Its embedding goes")
    wait_for_text(database, changed, "Damaged")
    eventually(lambda: unfinished_runs(database) == 0, 10, "quiet")
    code, found = verified(project)
    assert (code, found["true"]) == (0, True), found
    assert found["rows"] == one(database, "SELECT count(*) FROM posts")

    database.execute(
        "INSERT INTO post_embeddings SELECT -1, embedding, content_hash, model, source_epoch,"
        " source_lsn, source_idx FROM post_embeddings WHERE post_id = %s",
        [gone],
    )
    database.execute("DELETE FROM post_embeddings WHERE post_id = %s", [gone])
    damage = "UPDATE post_embeddings SET content_hash = 'damaged' WHERE post_id = %s"
    database.execute(damage, [changed])
    code, found = verified(project)
    assert code == 1
    problems = {row["key"][0]: row["problem"] for row in found["listed"]}
    assert problems == {str(gone): "missing", str(changed): "stale", "-1": "orphaned"}

    code, found = verified(project, "--fix")
    assert (code, found["true"], found["fixed"]["rows"]) == (0, True, 3), found
    assert one(database, OUT_OF_STEP) == 0
    assert stored_hash(database, gone) == content_hash("Its embedding goes")
    assert stored_hash(database, -1) is None
    assert project.triggerkit("verify").returncode == 0


def test_settings_left_empty_in_the_file_do_not_hide_those_of_dev(
    project: ReferenceProject,
) -> None:
    file = project.folder / ".env"
    file.write_text("DATABASE_URL=\nREDIS_URL=\n")
    try:
        status = project.status()
    finally:
        file.unlink()
    assert status["database_url"].startswith("postgresql://")
    assert status["problem"] is None


def test_a_second_dev_is_refused_and_names_the_first(project: ReferenceProject) -> None:
    second = project.triggerkit("dev", "--json", "--port", "0")
    assert second.returncode == 1
    assert str(project.dev.pid) in second.stderr
    assert "Traceback" not in second.stdout + second.stderr
    assert project.status()["ready"] is True


def test_ctrl_c_ends_everything_and_the_next_start_goes_on(project: ReferenceProject) -> None:
    with project.connect() as database:
        post_id = insert_post(database, "Before the pause")
        wait_for_text(database, post_id, "Before the pause")
        eventually(lambda: unfinished_runs(database) == 0, 10, "quiet")
        runs_before = one(database, "SELECT count(*) FROM triggerkit.runs")
    processes = family(project.dev.pid)
    named = {process["pid"] for process in project.status()["processes"]}
    assert named <= processes
    assert project.dev.interrupt() == 0, project.dev.explain()
    eventually(lambda: not running(processes), 2, "the end of every process")
    stopped = project.triggerkit("status", "--json")
    assert stopped.returncode == 1
    assert orjson.loads(stopped.stdout)["ready"] is False

    project.start()
    with project.connect() as database:
        new_id = insert_post(database, "After the pause")
        wait_for_text(database, new_id, "After the pause")
        eventually(lambda: unfinished_runs(database) == 0, 10, "quiet")
        assert stored_hash(database, post_id) == content_hash("Before the pause")
        assert one(database, "SELECT count(*) FROM triggerkit.runs") == runs_before + 1
        assert one(database, OUT_OF_STEP) == 0


def test_a_killed_dev_leaves_no_process_and_loses_nothing(project: ReferenceProject) -> None:
    processes = family(project.dev.pid)
    named = {process["name"]: process["pid"] for process in project.status()["processes"]}
    assert named.keys() >= {"postgres", "redis", "embeddings", "stream", "serve", "worker"}
    assert set(named.values()) < processes
    assert mentioning(project.folder)
    with project.connect() as database:
        last_id = insert_post(database, "Committed just before the kill")
    killed_at = time.monotonic()
    project.dev.kill()
    eventually(lambda: not running(processes), 5, "the end of every process")
    print(f"{time.monotonic() - killed_at:.2f} s to the end of every process")
    assert not mentioning(project.folder)

    project.start()
    with project.connect() as database:
        # A run the dead worker had is given to another once the lease is over.
        eventually(lambda: stored_hash(database, last_id), 30, "an embedding of the last post")
        eventually(lambda: unfinished_runs(database) == 0, 20, "quiet")
        assert one(database, OUT_OF_STEP) == 0

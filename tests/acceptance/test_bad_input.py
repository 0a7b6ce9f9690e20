"""Bad input to every command: one line with its remedy and the right exit code, no traceback."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from tests.acceptance.bad_input import ENDPOINT, LASTING, Case, Command, commands
from tests.acceptance.forked_commands import run_cases
from tests.acceptance.project import run_command

TASKS = """
from typing import Any
from triggerkit import Change, changes, task

@task(queue="copies", verify="SELECT 1, 'stale' WHERE false", on=changes("public.items"))
def copy_item(batch: list[Change[dict[str, Any]]]) -> None: ...

@task(queue="letters", schedule="0 6 * * *")
def send_letter() -> None: ...
"""

#: Nothing listens there: port 1 is reserved.
NOTHING = "postgresql://shop:hunter2@127.0.0.1:1/shop"

#: A remedy says what to do, or what there is.
REMEDY = re.compile(
    r"[;:] |did you mean|triggerkit \w+|known \w+|there are none|see |such as |must be"
)

Answer = Mapping[str, Any]


@pytest.fixture
def project(tmp_path: Path, database_url: str, redis_url: str) -> Path:
    """A project whose consumer, endpoint, queue and schedule are there."""
    (tmp_path / "tasks.py").write_text(TASKS)
    (tmp_path / "sequin.yaml").write_text("sinks: []\n")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.items (id int PRIMARY KEY, note text)")
    settings = settings_of(database_url, redis_url)
    for words in (["apply"], ["endpoints", "create", ENDPOINT, "http://127.0.0.1:1/hook"]):
        made = run_command(tmp_path, "triggerkit", *words, settings=settings)
        assert made.returncode == 0, made.stderr
    return tmp_path


@pytest.fixture
def stranger_url(database_url: str) -> Iterator[str]:
    """The database for a role that may do nothing in it."""
    role = sql.Identifier(f"stranger_{uuid4().hex[:8]}")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        yield database_url.replace("://postgres@", f"://{role.as_string(None)[1:-1]}@")
        connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
        connection.execute(sql.SQL("DROP ROLE {}").format(role))


def settings_of(database_url: str, redis_url: str = "redis://127.0.0.1:1/0") -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "TRIGGERKIT_WEBHOOK_SECRET": "a secret that is long enough for everybody",
        "TRIGGERKIT_ALLOW_NETWORKS": "127.0.0.0/8",
        "TRIGGERKIT_PORT": "0",
    }


def judged(
    project: Path, cases: list[Case], problem_of: Callable[[Case, Answer], str | None]
) -> None:
    """Run the cases and name those of which there is something wrong."""
    assert cases
    answers = run_cases(project, cases)
    wrong = [
        f"{' '.join(case.arguments)}: {problem} (exit {answer['code']})\n{answer['said']}"
        for case, answer in zip(cases, answers, strict=True)
        if (problem := in_general(answer) or problem_of(case, answer))
    ]
    assert not wrong, f"{len(wrong)} of {len(cases)}:\n" + "\n".join(wrong)


def in_general(answer: Answer) -> str | None:
    """What is never right."""
    if "Traceback" in answer["said"] or answer["code"] == 99:
        return "a traceback"
    if "hunter2" in answer["said"]:
        return "a password"
    if answer["code"] == -14:
        return "no end"
    return None


def refusal(*codes: int) -> Callable[[Case, Answer], str | None]:
    """One line that says what is wrong and what to do, and one of the exit codes."""

    def problem(case: Case, answer: Answer) -> str | None:
        lines = [line for line in answer["said"].splitlines() if line.strip()]
        told = [line for line in lines if line.startswith("error:")]
        is_usage = bool(lines) and lines[0].startswith("Usage:")
        if answer["code"] not in codes:
            return "another exit code"
        if is_usage:
            return None if answer["code"] == 2 else "a usage error of another code"
        if len(told) != 1:
            return f"{len(told)} lines that begin with error:"
        return None if REMEDY.search(told[0].removeprefix("error: ")) else "no remedy"

    return problem


def either(*problems: Callable[[Case, Answer], str | None]) -> Callable[[Case, Answer], str | None]:
    """Right when one of them finds nothing wrong."""

    def problem(case: Case, answer: Answer) -> str | None:
        found = [one(case, answer) for one in problems]
        return None if None in found else found[0]

    return problem


def done(*codes: int) -> Callable[[Case, Answer], str | None]:
    """One of the exit codes, and no error."""

    def problem(case: Case, answer: Answer) -> str | None:
        if answer["code"] not in codes:
            return "another exit code"
        return "an error" if answer["said"].startswith("error:") else None

    return problem


def connecting(*left_out: str) -> list[Command]:
    """The commands that ask a server."""
    # A tunnel asks another server than the database's; where the log is in Postgres, `deliver` asks
    # none.
    alone = {"init", "tasks", "sql", "completion", "psql", "tunnel", "import", "deliver"}
    return [command for command in commands() if command.name not in {*alone, *left_out}]


@pytest.mark.timeout(600)
def test_an_unknown_name_is_answered_with_what_there_is(
    project: Path, database_url: str, redis_url: str
) -> None:
    settings = settings_of(database_url, redis_url)
    # These make it, or may be told ahead of the first run.
    makes = {
        "init",
        "endpoints create",
        "consumers create",
        "events users add",
        "tunnel tokens add",
        "queues pause",
        "queues limit",
    }
    cases = [
        Case(command.name, command.typed(unknown=True), settings)
        for command in commands()
        if command.takes_a_name and command.name not in makes
    ]
    judged(project, cases, refusal(1, 2))


@pytest.mark.timeout(600)
def test_a_wrong_type_is_a_usage_error(project: Path, database_url: str, redis_url: str) -> None:
    settings = settings_of(database_url, redis_url)
    cases = [
        Case(command.name, words, settings)
        for command in commands()
        # Its options are those of a program that is not ours.
        if command.name != "psql"
        for words in command.mistyped()
    ]
    assert len(cases) > len(commands())
    judged(project, cases, refusal(2))


@pytest.mark.timeout(600)
def test_a_missing_privilege_is_told_with_its_remedy(
    project: Path, stranger_url: str, redis_url: str
) -> None:
    settings = settings_of(stranger_url, redis_url)
    cases = [Case(c.name, c.typed(), settings) for c in connecting("models", "roles")]
    shown = {"check": done(3), "status": done(1)}
    judged(project, cases, lambda case, answer: shown.get(case.command, refusal(3))(case, answer))


@pytest.mark.timeout(600)
def test_an_unreachable_server_is_told_with_its_remedy(project: Path) -> None:
    cases = [Case(c.name, c.typed(), settings_of(NOTHING)) for c in connecting()]
    shown = {"status": done(1)}
    judged(project, cases, lambda case, answer: shown.get(case.command, refusal(4))(case, answer))


#: How a schema becomes one of another version.
VERSIONS = {
    "none": "DROP SCHEMA triggerkit CASCADE",
    "newer": """
        INSERT INTO triggerkit.migrations (version, name) VALUES (999, 'later');
        DO $$ DECLARE was record; BEGIN
            FOR was IN SELECT c.relname, a.attname
                FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
                WHERE c.relnamespace = 'triggerkit'::regnamespace AND NOT a.attisdropped
                  AND c.relkind = 'r' AND c.relname <> 'migrations'
            LOOP
                EXECUTE format('ALTER TABLE triggerkit.%I RENAME COLUMN %I TO %I',
                    was.relname, was.attname, was.attname || '_then');
            END LOOP;
        END $$
    """,
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_schema_of_another_version_is_told_with_its_remedy(
    project: Path, database_url: str, redis_url: str, version: str
) -> None:
    # These make it, or wait for it, as others go on beside a newer one that is being rolled out.
    left_out = {
        "none": ("upgrade", "apply", "dev", "plan", "stream"),
        "newer": ("serve", "worker"),
    }
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(VERSIONS[version].encode())
    settings = settings_of(database_url, redis_url)
    cases = [
        Case(c.name, c.typed(), settings) for c in connecting("models", "roles", *left_out[version])
    ]
    expected = refusal(3)
    # Where nothing is named as it is known, there is nothing to check.
    shown = {"check": done(3) if version == "none" else expected, "status": done(1)}

    def problem(case: Case, answer: Answer) -> str | None:
        found = shown.get(case.command, expected)(case, answer)
        named = "upgrade" if version == "none" else "version 999, newer than"
        return found or (None if named in answer["said"] else f"no {named!r}")

    judged(project, cases, problem)


@pytest.mark.timeout(600)
def test_without_a_terminal_nothing_is_asked(
    project: Path, database_url: str, redis_url: str
) -> None:
    settings = settings_of(database_url, redis_url)
    cases = [
        Case(command.name, command.typed(bare=True), settings)
        for command in commands()
        if command.name not in LASTING
    ]
    judged(project, cases, either(done(0, 1, 3, 5), refusal(1, 2, 3)))


@pytest.mark.timeout(600)
def test_a_closed_pipe_is_no_error_to_tell_of(
    project: Path, database_url: str, redis_url: str
) -> None:
    settings = settings_of(database_url, redis_url)
    cases = [
        Case(command.name, words, settings, cut="pipe")
        for command in commands()
        if command.name not in LASTING
        for words in (command.typed(), [*command.words, "--help"])
    ]

    def problem(case: Case, answer: Answer) -> str | None:
        if answer["code"] not in (0, 1, 2, 3, 5):
            return "another exit code"
        if not answer["said"] or answer["said"].startswith(("error:", "Usage:", "warning:")):
            return None
        return "something was said"

    judged(project, cases, problem)


@pytest.mark.timeout(600)
def test_ctrl_c_ends_a_command_in_the_middle_without_a_word(project: Path) -> None:
    # Where the database is, somebody listens who never answers.
    cases = [
        Case(c.name, c.typed(), settings_of("{silent}"), cut="interrupt") for c in connecting()
    ]

    def problem(case: Case, answer: Answer) -> str | None:
        # What lasts is stopped by it, and ends well.
        if answer["code"] != 130 and not (answer["code"] == 0 and case.command in LASTING):
            return "another exit code"
        if case.command == "dev":
            return None
        return "something was said" if answer["said"] else None

    judged(project, cases, problem)


#: Rows of what is listed, ten thousand of each.
MANY = """
INSERT INTO triggerkit.endpoints (name, url)
    SELECT 'endpoint_' || i, 'http://127.0.0.1:1/' || i FROM generate_series(1, 10000) i;
INSERT INTO triggerkit.queues (name, paused_at) SELECT 'queue_' || i, now()
    FROM generate_series(1, 10000) i;
INSERT INTO triggerkit.backfills (consumer_id, schema_name, table_name, state)
    SELECT c.id, 'public', 'items', 'paused'
    FROM triggerkit.consumers c, generate_series(1, 10000) i WHERE c.name = 'copy_item'
"""


@pytest.mark.timeout(600)
def test_lists_of_ten_thousand_rows_are_printed_whole_and_cut_short(
    project: Path, database_url: str, redis_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(MANY.encode())
    settings = settings_of(database_url, redis_url)
    lists = [command for command in commands() if command.words[-1] == "list"]
    cases = [Case(c.name, c.typed(), settings) for c in lists]
    cases += [Case(c.name, c.typed(), settings, cut="pipe") for c in lists]
    rows = {"endpoints list", "queues list", "backfill list"}

    def problem(case: Case, answer: Answer) -> str | None:
        if case.cut is not None:
            is_quiet = answer["code"] in (0, 1) and not answer["said"]
            return None if is_quiet else "something was said"
        lines = answer["said"].count("\n")
        if case.command in rows and lines < 10_000:
            return f"{lines} lines"
        return done(0)(case, answer)

    judged(project, cases, problem)

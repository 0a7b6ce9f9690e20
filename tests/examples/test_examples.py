"""The examples do what their READMEs say, on real servers, and lose nothing by a kill."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pymysql
import pytest

from tests.examples.example import EXAMPLES, running
from tests.examples.http_server import Answer, http_server
from tests.examples.mariadb import running_mariadb
from tests.examples.smtp_server import smtp_server
from tests.ports import free_port
from triggerkit.settings import Settings

#: Commands are typed one after the other, on a machine that may be busy.
pytestmark = pytest.mark.timeout(300)


def test_every_example_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    folders = {path.parent.name for path in EXAMPLES.glob("*/triggerkit.toml")}
    assert len(folders) == 7
    assert not [name for name in folders if f"({name}/README.md)" not in listed]


def test_search_index(tmp_path: Path, settings: Settings) -> None:
    with running("search_index", tmp_path, settings) as example:
        example.type_next()
        example.until_runs_ended(1)
        assert example.type_next() == "1. Otters\n"
        example.type_next()
        example.until_runs_ended(2)
        assert example.type_next() == "1. Otters\n"
        assert example.type_next() == ""
        example.type_next()
        example.until_runs_ended(3)
        assert example.type_next() == ""
        example.type("triggerkit psql -c \"insert into articles (title, body) values ('a', 'b')\"")
        example.until_runs_ended(4)
        example.type('triggerkit psql -c "truncate articles"')
        example.until_runs_ended(5)
        assert example.type("python search.py b") == ""


def test_cache(tmp_path: Path, settings: Settings) -> None:
    with running("cache", tmp_path, settings) as example:

        def cached() -> Any:
            shown = example.type_next().strip()
            return None if shown == "None" else json.loads(shown[2:-1])

        example.type_next()
        example.until_runs_ended(1)
        assert cached() == {"id": 1, "name": "Tea", "price_cents": 450}
        example.kill_workers()
        example.type_next()
        example.until_runs_ended(2)
        assert cached() == {"id": 1, "name": "Tea", "price_cents": 500}
        example.type_next()
        example.until_runs_ended(3)
        assert cached() is None
        example.type(
            "triggerkit psql -c \"insert into products (name, price_cents) values ('a', 1)\""
        )
        example.until_runs_ended(4)
        example.type('triggerkit psql -c "truncate products"')
        example.until_runs_ended(5)
        example.type_next()
        assert (
            example.type(
                "python -c \"from tasks import products as p; print(p().keys('product:*'))\""
            )
            == "[]\n"
        )


def test_email_outbox(tmp_path: Path, settings: Settings) -> None:
    port = free_port()
    given = {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(port), "MAIL_FROM": "shop@example.com"}
    with running("email_outbox", tmp_path, settings, given) as example:
        example.type_next()
        waiting = "SELECT count(*) FROM triggerkit.runs WHERE status = 'retrying'"
        example.until(lambda: example.query(waiting) == [(1,)], "the run waits for the server")
        example.kill_workers()
        with smtp_server(port) as mailbox:
            example.until_runs_ended(1)
            example.type_next()
            example.type_next()
            assert "completed" in example.type_next()
            refused = (
                "insert into outbox (recipient, subject, body) values ('nobody@x.org', 's', 'b')"
            )
            example.type(f'triggerkit psql -c "{refused}"')
            failed = "SELECT attempt FROM triggerkit.runs WHERE status = 'failed'"
            example.until(lambda: example.query(failed) == [(1,)], "the refused mail has failed")
        [mail] = mailbox.mails
        assert mail["To"] == "ada@example.com"
        assert mail["Message-ID"] == "<outbox-1@example.com>"
        assert "on its way" in str(mail.get_payload())


def test_slack(tmp_path: Path, settings: Settings) -> None:
    requests = count()

    def answer(message: Any) -> Answer:
        if next(requests) == 0:
            return 429, {"retry-after": "1"}, "slow down"
        return 200, {}, "ok"

    with http_server(answer) as slack:
        given = {"SLACK_WEBHOOK_URL": f"{slack.url}/services/T0/B0/x"}
        with running("slack", tmp_path, settings, given) as example:
            for _ in range(4):
                example.type_next()
            example.until_runs_ended(3)
        assert slack.refused == 1
        assert [message["text"] for message in slack.accepted] == [
            "New order 1 of Ada",
            "Order 1 of Ada: new → paid",
            "Order 1 of Ada was removed",
        ]


def test_audit_trail(tmp_path: Path, settings: Settings) -> None:
    with running("audit_trail", tmp_path, settings) as example:
        example.type_next()
        example.type_next()
        example.kill_workers()
        example.type_next()
        example.type_next()
        trail = "SELECT action, actor, old_values, row_after FROM audit_trail ORDER BY position"
        example.until(lambda: len(example.query(trail)) == 4, "four rows")
        ada = {"id": 1, "owner": "Ada", "balance_cents": 1000}
        poorer = {**ada, "balance_cents": 700}
        assert example.query(trail) == [
            ("insert", None, None, ada),
            ("update", "bob", {"balance_cents": 1000}, poorer),
            ("delete", None, poorer, None),
            ("truncate", None, None, None),
        ]
        assert "bob" in example.type_next()


def test_ollama_embeddings(tmp_path: Path, settings: Settings) -> None:
    requests = count()

    def answer(body: Any) -> Answer:
        if next(requests) == 0:
            return 503, {}, "loading the model"
        assert body["model"] == "nomic-embed-text"
        return 200, {}, {"embeddings": [[float(len(text)), 1.0] for text in body["input"]]}

    with http_server(answer) as ollama:
        given = {"OLLAMA_URL": ollama.url, "OLLAMA_MODEL": "nomic-embed-text"}
        with running("ollama_embeddings", tmp_path, settings, given) as example:

            def until_embedded(expected: dict[int, str]) -> None:
                rows = "SELECT note_id, embedding::text FROM note_embeddings"
                vectors = {id_: f"[{len(text)},1]" for id_, text in expected.items()}
                example.until(lambda: dict(example.query(rows)) == vectors, f"{vectors}")

            hands, bread = "Otters hold hands while sleeping.", "Bread needs time to rise."
            example.type_next()
            until_embedded({1: hands, 2: bread})
            example.type_next()
            until_embedded({1: "Otters juggle stones.", 2: bread})
            asked = len(ollama.accepted)
            example.type_next()
            example.type_next()
            until_embedded({1: "Otters juggle stones."})
            assert len(ollama.accepted) == asked
            assert "2" in example.type_next()
            assert example.type_next() == "1. Otters juggle stones.\n"
            example.type('triggerkit psql -c "truncate notes"')
            until_embedded({})


@pytest.fixture
def mysql_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from running_mariadb(tmp_path_factory.mktemp("mariadb"))


def test_mysql_sync(tmp_path: Path, settings: Settings, mysql_url: str) -> None:
    with running("mysql_sync", tmp_path, settings, {"MYSQL_URL": mysql_url}) as example:

        def until_copied(*expected: tuple[int, str, str]) -> None:
            example.until(lambda: _customers(mysql_url) == expected, f"{expected}")

        ada, bob = (1, "Ada", "ada@example.com"), (2, "Bob", "bob@example.com")
        moved = (1, "Ada", "ada@example.org")
        example.type_next()
        until_copied(ada, bob)
        example.kill_workers()
        example.type_next()
        until_copied(moved, bob)
        example.type_next()
        until_copied(moved)
        example.type_next()
        until_copied()
        example.type_next()


def _customers(url: str) -> tuple[tuple[Any, ...], ...]:
    port = int(url.rpartition(":")[2].partition("/")[0])
    with closing(pymysql.connect(host="127.0.0.1", port=port, user="root", database="shop")) as it:
        cursor = it.cursor()
        cursor.execute("SELECT id, name, email FROM customers ORDER BY id")
        return tuple(cursor.fetchall())

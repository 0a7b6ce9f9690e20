"""What Postgres stores and other parsers do not is shown as it is, and hides nothing beside it."""

from __future__ import annotations

import psycopg
import pytest

from tests.integration.web.api.described import ApiSite
from tests.integration.web.api.guide import AT
from triggerkit.settings import Settings

STRANGE = {
    "a huge number": "('{\"max_attempts\": 1' || repeat('0', 40) || '}')::jsonb",
    "deep nesting": "('{\"a\": ' || repeat('[', 300) || repeat(']', 300) || '}')::jsonb",
    "an exponent": "'{\"n\": 1e300}'::jsonb",
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_strange_row_hides_no_list(kind: str, site: ApiSite, settings: Settings) -> None:
    value = STRANGE[kind]
    with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO triggerkit.audit (actor, action, subject, detail) "
            f"VALUES ('a', 'edit', 'strange', {value})".encode()
        )
        connection.execute(
            "INSERT INTO triggerkit.runs "
            "(id, task, queue, status, max_attempts, payload, metadata) "
            f"VALUES ('run_strange', 't', 'q', 'completed', 1, '{{}}', {value})".encode()
        )
    for path in ("/audit", "/runs"):
        answer = site.call("GET", path)
        assert answer.status == 200, path
        assert "strange" in str(answer.json)


@pytest.mark.parametrize("number", [2**31, 2**63, 2**64 - 1])
def test_numbers_beyond_what_is_stored_are_422(pushed: ApiSite, number: int) -> None:
    assert pushed.call("PATCH", AT, {"max_attempts": number}).status == 422
    assert pushed.call("GET", "/audit").status == 200

"""Answers to the SDK: an error's text, and whether it is to try again."""

from __future__ import annotations

import orjson
import psycopg
import pytest
from psycopg_pool import PoolTimeout

from triggerkit.compat.trigger_dev.answers import answer_to
from triggerkit.errors import ConfigurationError, NameTaken, UnknownRun
from triggerkit.tasks.receive.body import BodyRefused


@pytest.mark.parametrize(
    ("error", "status", "again"),
    [
        (PoolTimeout("no connection"), 503, "true"),
        (psycopg.OperationalError("the server is gone"), 503, "true"),
        (psycopg.errors.AdminShutdown("secret"), 503, "true"),
        (BodyRefused(408, "too slow"), 408, "true"),
        (BodyRefused(413, "too large"), 413, "false"),
        (UnknownRun("none"), 404, "false"),
        (ConfigurationError("does not fit"), 422, "false"),
        (psycopg.errors.UniqueViolation("secret"), 409, "true"),
        (NameTaken("a name"), 409, "false"),
        (KeyError("secret"), 500, "false"),
    ],
)
def test_only_what_may_pass_is_to_be_tried_again(error: Exception, status: int, again: str) -> None:
    answer = answer_to(error, "a call")
    assert (answer.status_code, answer.headers["x-should-retry"]) == (status, again)
    text = orjson.loads(answer.body)["error"]
    assert text
    assert "secret" not in text

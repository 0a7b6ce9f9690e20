"""What commands and filters read: times, statuses, rows, and the place of an error."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from triggerkit.cli.executed.run_options import moment
from triggerkit.cli.executed.run_view import row_of
from triggerkit.errors import ConfigurationError
from triggerkit.runs.admin.error_groups import place_of
from triggerkit.runs.admin.filter import RunFilter

OWN = '  File "/srv/shop/tasks.py", line 7, in tell\n    send()\n'
LIBRARY = '  File "/x/.venv/lib/python3.11/site-packages/smtp.py", line 9, in send\n    raise E\n'
STANDARD = '  File "/usr/lib/python3.12/socket.py", line 1, in connect\n    raise E\n'


def test_a_time_is_how_long_ago_or_when() -> None:
    assert moment(None, "--since") is None
    assert moment("2026-01-02T03:04:05+01:00", "--since") == datetime(
        2026, 1, 2, 2, 4, 5, tzinfo=UTC
    )
    assert moment("2026-01-02", "--since") == datetime(2026, 1, 2, tzinfo=UTC)
    for text, ago in (("90s", 90), ("15m", 900), ("2h", 7200), ("7d", 604800)):
        found = moment(text, "--since")
        assert found is not None
        assert abs(datetime.now(UTC) - found - timedelta(seconds=ago)) < timedelta(seconds=5)
    for text in ("soon", "5w", "-5m", "m", ""):
        with pytest.raises(ConfigurationError, match="--since"):
            moment(text, "--since")


@pytest.mark.parametrize(
    ("traceback", "place"),
    [
        (OWN + LIBRARY, "/srv/shop/tasks.py:7 in tell"),
        (OWN + STANDARD, "/srv/shop/tasks.py:7 in tell"),
        (LIBRARY + OWN, "/srv/shop/tasks.py:7 in tell"),
        (OWN.replace("7", "1") + OWN, "/srv/shop/tasks.py:7 in tell"),
        (STANDARD, "/usr/lib/python3.12/socket.py:1 in connect"),
        ("", None),
        ('File "no line"', None),
    ],
)
def test_the_place_of_an_error_is_the_projects_own_last_frame(
    traceback: str, place: str | None
) -> None:
    assert place_of(traceback) == place


def test_a_key_with_its_table_is_a_row() -> None:
    def key(wanted: RunFilter) -> object:
        return wanted.ids("true", 1)[1]["key"]

    assert key(RunFilter(table="public.posts", key="1")) == ['public.posts:["1"]']
    # A comma stands between two values, or in one.
    both = ['public.posts:["1,b"]', 'public.posts:["1","b"]']
    assert key(RunFilter(table="public.posts", key="1,b")) == both
    assert key(RunFilter(key='public.posts:["1"]')) == ['public.posts:["1"]']


def test_a_filter_that_leaves_nothing_out_says_so() -> None:
    assert RunFilter().is_empty
    assert not RunFilter(statuses=("failed",)).is_empty
    since = datetime(2026, 1, 2, tzinfo=UTC)
    assert RunFilter(task="a", since=since).as_json() == {
        "task": "a",
        "since": "2026-01-02T00:00:00+00:00",
    }


def test_a_row_is_told_in_short() -> None:
    def row(source: dict[str, str] | None, items: int | None = None) -> str:
        return row_of({"items": items, "source": source})

    assert row({"key": 'public.posts:["1"]'}) == "posts 1"
    assert row({"key": 'shop.lines:["1","b"]'}) == "shop.lines 1,b"
    assert row({"table": "public.posts"}, items=1) == "public.posts"
    assert row({"table": "public.posts"}, items=7) == "7 changes"
    assert row({"schedule": "nightly"}) == "nightly"
    assert row(None) == ""

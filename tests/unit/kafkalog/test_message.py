"""An entry as a message of the log's topic, which takes no more than it takes."""

from __future__ import annotations

import pytest

from triggerkit.errors import ConfigurationError
from triggerkit.kafkalog.message import fitted, placed
from triggerkit.log.entry import Entry

SMALL = Entry(
    7, 3, "public", "items", '["1"]', "insert", 100, 0, "2026-11-22T08:00:00.000000Z", 5,
    b'{"id":1}', None, (),
)  # fmt: skip

LIMIT = 1000


def test_what_fits_is_as_it_was() -> None:
    _, value = fitted(SMALL, 2, LIMIT)
    assert placed(value, 3, 0).entry == SMALL


@pytest.mark.parametrize(
    ("large", "fault", "key"),
    [
        ({"record": b"x" * 2000}, "record of 2000 bytes", '["1"]'),
        ({"annotations": "x" * 2000}, "annotations of 2000 bytes", '["1"]'),
        ({"key": f'["{"x" * 2000}"]'}, "key of 2004 bytes", '["sha256:'),
    ],
    ids=["record", "annotations", "key"],
)
def test_what_is_too_large_goes_without_it_and_says_so(
    large: dict[str, object], fault: str, key: str
) -> None:
    entry = SMALL._replace(**large)  # type: ignore[arg-type]
    message_key, value = fitted(entry, 2, LIMIT)
    assert len(message_key) + len(value) <= LIMIT
    found = placed(value, 3, 0).entry
    assert (found.position, found.partition, found.record) == (7, 3, None)
    assert found.key.startswith(key)
    assert found.fault is not None
    assert fault in found.fault
    assert f"limit of {LIMIT}" in found.fault


def test_a_topic_that_takes_nothing_is_told_of() -> None:
    with pytest.raises(ConfigurationError, match=r"raise the topic's max\.message\.bytes"):
        fitted(SMALL, 2, 50)

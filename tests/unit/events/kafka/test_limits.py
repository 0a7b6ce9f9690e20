"""Which messages a topic takes, as far as that is known before the broker says."""

from __future__ import annotations

import pytest

from triggerkit.events.kafka.broker import BrokerTopic
from triggerkit.events.kafka.client import is_compressing, producer_properties
from triggerkit.events.kafka.limits import fit, judged, together_bytes
from triggerkit.events.kafka.record import Record
from triggerkit.settings import Settings

LIMIT = 10_000


def record(size_bytes: int, key: str = "k", **header: str) -> Record:
    """A record of this size."""
    headers = (("lsn", "1"), *header.items())
    empty = Record(1, "t", key, b"", headers, 0).size_bytes
    made = Record(1, "t", key, b"x" * (size_bytes - empty - 4), headers, 0)
    short = size_bytes - made.size_bytes
    made = made._replace(value=b"x" * (len(made.value or b"") + short))
    assert made.size_bytes == size_bytes
    return made


@pytest.mark.parametrize(
    ("size_bytes", "is_compressed", "is_known", "expected"),
    [
        (together_bytes(LIMIT), False, True, "surely"),
        (together_bytes(LIMIT), True, False, "surely"),
        (LIMIT, False, True, "maybe"),
        (LIMIT + 1, False, True, "no"),
        (LIMIT + 1, True, True, "maybe"),
        (LIMIT + 1, False, False, "maybe"),
    ],
)
def test_what_counts_is_what_is_known(
    size_bytes: int, is_compressed: bool, is_known: bool, expected: str
) -> None:
    topic = BrokerTopic(1, LIMIT, is_known)
    assert fit(record(size_bytes), topic, is_compressed=is_compressed) == expected


@pytest.mark.parametrize("key", ["k", "ü" * 3000, "日" * 2000])
@pytest.mark.parametrize("previous", ["", "日" * 2000])
def test_a_long_key_counts_by_its_bytes(key: str, previous: str) -> None:
    topic = BrokerTopic(1, LIMIT)
    header = {"previous_key": previous} if previous else {}
    made = Record(1, "t", key, b"{}", (("lsn", "1"), *header.items()), 0)
    expected = "surely" if made.size_bytes <= together_bytes(LIMIT) else "no"
    assert fit(made, topic, is_compressed=False) == expected


def test_the_first_that_surely_does_not_fit_is_named_before_one_that_may() -> None:
    there = {"t": BrokerTopic(1, LIMIT)}
    records = [record(50 + 100), record(LIMIT), record(LIMIT + 7)]
    assert judged(records[:1], there, is_compressed=False) == ("surely", None)
    found, why = judged(records, there, is_compressed=False)
    assert found == "no"
    assert "10,007 bytes, and the limit is 10,000" in (why or "")
    assert judged(records, there, is_compressed=True)[0] == "maybe"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, False),
        ({"KAFKA_COMPRESSION_TYPE": "zstd"}, True),
        ({"KAFKA_COMPRESSION_CODEC": "lz4"}, True),
        ({"KAFKA_COMPRESSION_TYPE": "none"}, False),
    ],
)
def test_whether_the_producer_compresses_is_what_its_settings_say(
    given: dict[str, str], expected: bool
) -> None:
    settings = Settings.parse({"KAFKA_BOOTSTRAP_SERVERS": "b:1", **given})
    assert is_compressing(producer_properties(settings.kafka)) == expected

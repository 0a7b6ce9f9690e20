"""Frames of the CopyBoth stream: recorded ones are read, broken ones refused."""

from __future__ import annotations

from datetime import UTC, datetime
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.recordings import KEEPALIVE, STEPS
from triggerkit.errors import MalformedFrame
from triggerkit.lsn import Lsn
from triggerkit.replication.codec.frames import (
    POSTGRES_EPOCH_US,
    PrimaryKeepalive,
    StandbyStatusUpdate,
    XLogData,
    parse_frame,
    parse_keepalive,
    payload_of,
)

FRAMES = [frame for step in STEPS.values() for frame in step.frames]
AN_INSERT = STEPS["insert"].frames[2]


def test_every_recorded_frame_carries_its_payload() -> None:
    for frame in FRAMES:
        parsed = parse_frame(frame)
        assert isinstance(parsed, XLogData)
        assert parsed.payload == frame[25:]
        assert payload_of(memoryview(frame)) == frame[25:]


def test_xlog_data_has_positions_and_time() -> None:
    frame = b"w" + pack("!QQq", 0x16_B374D848, 0x16_B374D900, -5) + b"payload"
    assert parse_frame(frame) == XLogData(0x16_B374D848, 0x16_B374D900, -5, b"payload")


def test_a_frame_in_foreign_memory_gives_bytes_of_its_own() -> None:
    memory = bytearray(AN_INSERT)
    parsed = parse_frame(memoryview(memory))
    payload = payload_of(memoryview(memory))
    memory[:] = bytes(len(memory))
    assert isinstance(parsed, XLogData)
    assert parsed.payload == payload == AN_INSERT[25:]


def test_the_recorded_keepalive_is_read() -> None:
    parsed = parse_frame(KEEPALIVE)
    assert isinstance(parsed, PrimaryKeepalive)
    assert isinstance(parsed.wal_end, Lsn)
    assert not parsed.reply_requested
    assert payload_of(memoryview(KEEPALIVE)) is None


def test_a_keepalive_may_ask_for_a_reply() -> None:
    frame = b"k" + pack("!QqB", 0x10, 7, 1)
    assert parse_keepalive(frame) == PrimaryKeepalive(Lsn(0x10), 7, True)
    assert parse_frame(memoryview(frame)) == PrimaryKeepalive(Lsn(0x10), 7, True)


@pytest.mark.parametrize("length", range(18))
def test_a_keepalive_cut_short_is_malformed(length: int) -> None:
    with pytest.raises(MalformedFrame):
        parse_frame(KEEPALIVE[:length])


def test_a_keepalive_with_more_bytes_is_malformed() -> None:
    with pytest.raises(MalformedFrame):
        parse_frame(KEEPALIVE + b"\0")


@pytest.mark.parametrize("length", range(25))
def test_a_header_cut_short_is_malformed(length: int) -> None:
    with pytest.raises(MalformedFrame):
        parse_frame(AN_INSERT[:length])
    assert payload_of(memoryview(AN_INSERT[:length])) is None


@pytest.mark.parametrize("frame", [b"r" + bytes(33), b"\0", b"W" + bytes(30)])
def test_an_unknown_tag_is_malformed(frame: bytes) -> None:
    with pytest.raises(MalformedFrame, match=f"0x{frame[0]:02x}"):
        parse_frame(frame)
    assert payload_of(memoryview(frame)) is None


def test_a_status_update_has_the_bytes_of_the_documentation() -> None:
    update = StandbyStatusUpdate(Lsn(3), Lsn(2), Lsn(1), client_time_us=4, reply_requested=True)
    assert update.to_bytes() == (
        b"r" + b"\0\0\0\0\0\0\0\3" + b"\0\0\0\0\0\0\0\2" + b"\0\0\0\0\0\0\0\1"
        b"\0\0\0\0\0\0\0\4" + b"\1"
    )
    assert len(StandbyStatusUpdate(Lsn(2**64 - 1), Lsn(0), Lsn(0), -1).to_bytes()) == 34


def test_the_epoch_is_the_start_of_the_year_2000() -> None:
    assert datetime.fromtimestamp(POSTGRES_EPOCH_US / 1e6, UTC) == datetime(2000, 1, 1, tzinfo=UTC)


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda rest: b"w" + rest))
def test_any_bytes_are_a_frame_or_malformed(frame: bytes) -> None:
    try:
        parsed = parse_frame(frame)
    except MalformedFrame:
        return
    assert isinstance(parsed, XLogData | PrimaryKeepalive)

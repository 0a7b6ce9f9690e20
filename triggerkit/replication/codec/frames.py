"""Frames of the CopyBoth stream that `START_REPLICATION` opens, parsed and built.

All times are microseconds from 2000-01-01 UTC, all integers big-endian.
Source: PostgreSQL documentation, "Streaming Replication Protocol".
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct, error
from typing import Final, NamedTuple

from triggerkit.errors import MalformedFrame
from triggerkit.lsn import Lsn

#: Microseconds from the Unix epoch to 2000-01-01 UTC, where the protocol's clock starts.
POSTGRES_EPOCH_US: Final = 946_684_800_000_000

_XLOG_DATA: Final = 0x77  # 'w'
_KEEPALIVE: Final = 0x6B  # 'k'

_XLOG_HEADER = Struct("!xQQq")
_KEEPALIVE_BODY = Struct("!xQqB")
_STATUS = Struct("!cQQQqB")

# A named tuple made without its Python-level __new__ costs half: a frame arrives for every row.
_make = tuple.__new__


class XLogData(NamedTuple):
    """One pgoutput message and where it was in the WAL.

    The positions are plain integers, since there is one frame a row and few are ever printed.
    """

    start_lsn: int
    wal_end: int
    server_time_us: int
    payload: bytes


class PrimaryKeepalive(NamedTuple):
    """The server's sign of life: `wal_end` is the end of its WAL, as far as it was sent."""

    wal_end: Lsn
    server_time_us: int
    reply_requested: bool


@dataclass(frozen=True, slots=True)
class StandbyStatusUpdate:
    """The client's progress; `flushed` is the position that the slot confirms.

    Each position is the last WAL byte + 1. `reply_requested` asks for a keepalive at once.
    """

    written: Lsn
    flushed: Lsn
    applied: Lsn
    client_time_us: int
    reply_requested: bool = False

    def to_bytes(self) -> bytes:
        """Return the 'r' frame, 34 bytes."""
        return _STATUS.pack(
            b"r",
            self.written,
            self.flushed,
            self.applied,
            self.client_time_us,
            self.reply_requested,
        )


def payload_of(frame: memoryview) -> bytes | None:
    """Return the message in an XLogData frame, None for every other frame.

    It takes a third of the time of `parse_frame`, for readers that need no position of each row.
    """
    data = frame.tobytes()
    if len(data) > _XLOG_HEADER.size and data[0] == _XLOG_DATA:
        return data[_XLOG_HEADER.size :]
    return None


def position_of(frame: memoryview) -> int:
    """Return the place in the WAL that a frame tells of: both kinds have one after their tag."""
    return int.from_bytes(frame[1:9], "big")


def parse_frame(frame: bytes | memoryview) -> XLogData | PrimaryKeepalive:
    """Parse one frame as `PQgetCopyData` returns it; the result shares no memory with it.

    Raises:
        MalformedFrame: neither XLogData ('w') nor a primary keepalive ('k'), or cut short.
    """
    try:
        if frame[0] == _XLOG_DATA:
            start_lsn, wal_end, server_time_us = _XLOG_HEADER.unpack_from(frame)
            return _make(
                XLogData, (start_lsn, wal_end, server_time_us, bytes(frame[_XLOG_HEADER.size :]))
            )
        if frame[0] == _KEEPALIVE:
            return parse_keepalive(frame)
    except (error, IndexError) as cause:
        raise MalformedFrame(f"a replication frame of {len(frame)} bytes is cut short") from cause
    raise MalformedFrame(f"a replication frame has the unknown tag 0x{frame[0]:02x}")


def parse_keepalive(frame: bytes | memoryview) -> PrimaryKeepalive:
    """Parse a primary keepalive ('k') frame.

    Raises:
        MalformedFrame: `frame` is not exactly 18 bytes.
    """
    if len(frame) != _KEEPALIVE_BODY.size:
        raise MalformedFrame(f"a primary keepalive has {len(frame)} bytes, not 18")
    wal_end, server_time_us, reply_requested = _KEEPALIVE_BODY.unpack(frame)
    return PrimaryKeepalive(Lsn(wal_end), server_time_us, reply_requested != 0)

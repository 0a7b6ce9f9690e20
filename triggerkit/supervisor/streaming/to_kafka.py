"""Capture into a log on Kafka: what is delivered from it, other processes deliver."""

from __future__ import annotations

from typing import Protocol

from triggerkit.consumers.appender import Appender
from triggerkit.consumers.backfill.scheduler import Backfills
from triggerkit.consumers.backfill.table import MARKER_PREFIX
from triggerkit.kafkalog.writer import KafkaLogWriter
from triggerkit.log.entry import Entry
from triggerkit.log.followed import Moves
from triggerkit.replication import heartbeat
from triggerkit.replication.capture import TransactionPart


class MarkingAppender(Appender):
    """Also marks all partitions where something of our own came back through the WAL: what was
    known before it was sent is known to who reads on behind the mark."""

    def __init__(self, writer: KafkaLogWriter, backfills: Backfills) -> None:
        super().__init__(writer, backfills)
        self._marks = writer

    async def _write(self, part: TransactionPart) -> None:
        await super()._write(part)
        if any(message.prefix in (MARKER_PREFIX, heartbeat.PREFIX) for message in part.messages):
            self._marks.mark(int(part.transaction.commit_lsn), part.transaction.commit_at)


class Deliveries(Protocol):
    """The deliveries of a log as capture sees them, here or in other processes."""

    @property
    def head(self) -> int:
        """Return the last position in the log."""

    def appended(
        self, entries: list[Entry], head: int, is_growing: bool, moves: Moves | None = None
    ) -> None:
        """Note an append."""

    async def refresh(self) -> None:
        """Take in what was changed in the state."""


class Elsewhere:
    """Deliveries that other processes make: they are told by the log."""

    def __init__(self, writer: KafkaLogWriter) -> None:
        self._writer = writer

    @property
    def head(self) -> int:
        """Return the last position in the log."""
        return self._writer.next_position - 1

    def appended(
        self, entries: list[Entry], head: int, is_growing: bool, moves: Moves | None = None
    ) -> None:
        """They read it from Kafka."""

    async def refresh(self) -> None:
        """They are notified, and look at marks."""

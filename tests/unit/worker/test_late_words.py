"""What a run says after its end is written, and takes no memory for good."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest

from triggerkit.runs.journal_entry import JournalEntry
from triggerkit.runs.run import ClaimedRun
from triggerkit.worker.telemetry.journal import Journal
from triggerkit.worker.telemetry.notes import RunNotes

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def nowhere() -> psycopg.Connection:
    raise psycopg.ProgrammingError("there is no database here")


def claimed(run_id: str) -> ClaimedRun:
    return ClaimedRun(run_id, 1, "late", "default", 1, 3, 0, "null", None, None, None, None, NOW)


def test_lines_that_follow_the_end_of_their_attempts_are_counted_for_a_bounded_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("triggerkit.worker.telemetry.journal.MAX_COUNTED", 5)
    journal = Journal(nowhere)
    for number in range(50):
        run = f"run_{number}"
        journal.close(run, 1, NOW)
        journal.put(JournalEntry(run, 1, "log", None, None, "late", "info", "{}", None, NOW, None))
    assert len(journal._counts) <= 5
    assert journal._queue.qsize() == 50


def test_what_runs_change_of_themselves_after_their_end_is_forgotten_once_it_is_written() -> None:
    notes = RunNotes(Journal(nowhere), nowhere)
    notes.start()
    late = [notes.update(claimed(f"run_{number}"), ["late"], {}) for number in range(20)]
    for written in late:
        assert written.exception(10) is not None
    notes.stop()
    assert notes._last == {}

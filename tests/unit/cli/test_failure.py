"""Errors of servers are one line, with what to do."""

from __future__ import annotations

from psycopg import errors

from triggerkit.cli.failure import explained


def test_what_an_event_trigger_refuses_is_told_with_its_words() -> None:
    """The stream makes tables for its log, which an event trigger may forbid."""
    refused = errors.RaiseException("no DDL on this server: CREATE TABLE\nCONTEXT: …")
    told = str(explained(BaseExceptionGroup("of the stream", [refused])))
    assert "a trigger of the database refuses: no DDL on this server: CREATE TABLE;" in told
    assert "CONTEXT" not in told
    assert "TRIGGERKIT_STATE_URL" in told

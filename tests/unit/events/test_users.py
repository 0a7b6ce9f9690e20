"""Passwords of the users of the events: for how long one that was right is known to be."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from triggerkit.events import users
from triggerkit.events.users import KNOWN_S, Passwords

PASSWORD = "a password for the tests"


def test_a_password_that_is_given_again_and_again_stays_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(users, "time", SimpleNamespace(monotonic=lambda: now[0]))
    passwords, stored = Passwords(), users._hashed(PASSWORD)
    assert asyncio.run(passwords.matches(stored, "reader", PASSWORD))
    for _ in range(3):
        now[0] += 0.9 * KNOWN_S
        assert passwords.knows(stored, "reader", PASSWORD)
    assert not passwords.knows(users._hashed(PASSWORD), "reader", PASSWORD)
    now[0] += 1.1 * KNOWN_S
    assert not passwords.knows(stored, "reader", PASSWORD)

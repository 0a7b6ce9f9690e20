"""Whom the embedded Postgres runs as."""

from __future__ import annotations

import os
import pwd

import pytest

from triggerkit.embedded.account import check_named
from triggerkit.errors import ConfigurationError


def test_a_user_without_a_name_is_told_what_helps() -> None:
    known = {entry.pw_uid for entry in pwd.getpwall()}
    unnamed = next(uid for uid in range(54321, 60000) if uid not in known)
    with pytest.raises(ConfigurationError, match=f"{unnamed} has none.*DATABASE_URL"):
        check_named(unnamed)


def test_a_user_with_a_name_is_fine() -> None:
    check_named(os.geteuid())

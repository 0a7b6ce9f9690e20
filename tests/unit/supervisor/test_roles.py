"""The SQL of roles, whatever they and their database are called."""

from __future__ import annotations

import pytest

from triggerkit.errors import ConfigurationError
from triggerkit.supervisor.roles import state_role


@pytest.mark.parametrize("role", ["", "a\nb", "x" * 64, "é" * 32, "pg_state"])
def test_a_name_that_no_role_can_have_is_refused(role: str) -> None:
    with pytest.raises(ConfigurationError, match="is no name for a role"):
        state_role(role, "shop")


def test_a_url_without_a_database_is_told() -> None:
    with pytest.raises(ConfigurationError, match="names no database"):
        state_role("triggerkit_state", "")


def test_no_name_ends_the_quotes_or_the_comment_that_it_is_in() -> None:
    found = state_role("a$roles$ \"b'", "shop\nDROP TABLE x")
    assert "DO $roles_$ BEGIN" in found
    assert found.count("$roles_$") == 4
    assert not any(line.startswith("DROP") for line in found.splitlines()[:1])
    assert found.startswith("-- The state, in the database shop DROP TABLE x. Then")

"""The numbers of the migrations."""

from __future__ import annotations

from triggerkit.state.migrate import migrations


def test_migrations_are_numbered_one_by_one() -> None:
    """Two of one number, made beside each other, would be applied as one."""
    assert [m.version for m in migrations()] == list(range(1, len(migrations()) + 1))

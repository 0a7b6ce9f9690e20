"""A server that is too old, lacks pgvector, or keeps no state."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from tests.integration.supervisor.checks.checking import checked, database_name, number, run_sql
from triggerkit.settings import Settings
from triggerkit.supervisor.checks import server


def test_an_old_postgres(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MIN_POSTGRES", 990000)
    assert checked(settings)["postgres version"].failed


def test_pgvector_is_advice(settings: Settings) -> None:
    assert checked(settings)["pgvector"].ok
    run_sql(settings, "DROP EXTENSION vector")
    check = checked(settings)["pgvector"]
    assert (check.ok, check.failed, check.remedy) == (False, False, "CREATE EXTENSION vector;")
    run_sql(settings, check.remedy or "")
    assert checked(settings)["pgvector"].ok


def test_a_server_without_pgvector_is_told_what_to_install(settings: Settings) -> None:
    if number(settings, "SHOW server_version_num") < 180000:
        pytest.skip("only Postgres 18 can be told to look for extensions elsewhere")
    database = database_name(settings)
    run_sql(settings, f"ALTER DATABASE {database} SET extension_control_path = '/nowhere'")
    check = checked(settings)["pgvector"]
    assert (check.ok, check.failed) == (False, False)
    assert "-pgvector" in (check.remedy or "")


def test_a_state_database_that_does_not_answer(settings: Settings) -> None:
    nowhere = SecretStr("postgresql://shop:hunter2@127.0.0.1:1/shop")
    found = checked(settings.model_copy(update={"triggerkit_state_url": nowhere}))
    check = found["state database reachable"]
    assert check.failed
    assert "TRIGGERKIT_STATE_URL" in (check.remedy or "")
    assert "hunter2" not in check.detail
    assert found["redis reachable"].ok

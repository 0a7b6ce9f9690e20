"""Who runs the server is told by what Postgres shows, and remedies are in that one's words."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from tests.integration.supervisor.checks.checking import checked, database_name, run_sql
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.supervisor.checks import server
from triggerkit.supervisor.checks.provider import OWN, grant_replication, provider_of

#: What each shows, and a word of its remedies for WAL, parameters, roles and poolers.
SHOWN = [
    ("rds.logical_replication", "off", "Amazon RDS", ["parameter group", "RDS Proxy"]),
    ("cloudsql.logical_decoding", "off", "Cloud SQL", ["cloudsql.logical_decoding=on", "Proxy"]),
    ("azure.extensions", "vector", "Azure", ["az postgres flexible-server", "6432"]),
    ("neon.timeline_id", "x", "Neon", ["Logical Replication", "-pooler"]),
]


@pytest.mark.parametrize(("setting", "value", "name", "words"), SHOWN)
def test_a_provider_is_told_by_its_setting(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    value: str,
    name: str,
    words: list[str],
) -> None:
    assert "provider" not in checked(settings)
    run_sql(settings, f"ALTER DATABASE {database_name(settings)} SET {setting} = '{value}'")
    assert checked(settings)["provider"].detail == name

    async def found() -> list[str]:
        async with await connect(settings.source_dsn, "test") as source:
            provider = await provider_of(source)
            return [provider.logical, provider.direct, grant_replication(provider, 'a "b"')]

    logical, direct, grant = asyncio.run(found())
    assert words[0] in logical
    assert words[1] in direct
    assert '"a ""b"""' in grant


@pytest.mark.parametrize(
    ("role", "name"),
    [
        ("rds_superuser", "Amazon RDS"),
        ("cloudsqlsuperuser", "Cloud SQL"),
        ("azure_pg_admin", "Azure"),
        ("supabase_admin", "Supabase"),
        ("neon_superuser", "Neon"),
    ],
)
def test_a_provider_is_told_by_its_role(settings: Settings, role: str, name: str) -> None:
    async def found() -> tuple[str, str]:
        async with await connect(settings.source_dsn, "test") as source:
            # Rolled back: other tests' servers are their own.
            async with source.transaction(force_rollback=True):
                await source.execute(f"CREATE ROLE {role}".encode())
                theirs = await provider_of(source)
            return theirs.name, (await provider_of(source)).name

    assert asyncio.run(found()) == (name, OWN.name)


def test_no_room_for_a_slot_is_told_in_the_providers_words(settings: Settings) -> None:
    run_sql(settings, f"ALTER DATABASE {database_name(settings)} SET azure.extensions = ''")
    with psycopg.connect(settings.source_dsn, autocommit=True) as connection:
        row = connection.execute("SHOW max_replication_slots").fetchone()
        assert row is not None
        most = int(row[0])
        names = [f"filling_{i}" for i in range(most)]
        made = []
        try:
            for name in names:
                with_room = connection.execute(
                    "SELECT count(*) < %s FROM pg_replication_slots", [most]
                ).fetchone()
                if with_room != (True,):
                    break
                connection.execute("SELECT pg_create_physical_replication_slot(%s)", [name])
                made.append(name)
            check = checked(settings)["free replication slots"]
        finally:
            for name in made:
                connection.execute("SELECT pg_drop_replication_slot(%s)", [name])
    assert check.failed
    assert f"--name max_replication_slots --value {most + server.SPARE}" in (check.remedy or "")

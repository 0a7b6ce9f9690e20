"""Tell who runs the source's server by what it shows, so that remedies are in that one's words."""

from __future__ import annotations

from typing import Final, NamedTuple

import psycopg

from triggerkit.supervisor.checks.check import Check, quoted

#: Each is told by a setting or a role that nobody else has.
_PROVIDER = """
SELECT CASE
    WHEN current_setting('neon.timeline_id', true) IS NOT NULL OR r.names ? 'neon_superuser'
        THEN 'Neon'
    WHEN r.names ? 'supabase_admin' THEN 'Supabase'
    WHEN current_setting('cloudsql.logical_decoding', true) IS NOT NULL
        OR r.names ? 'cloudsqlsuperuser' THEN 'Cloud SQL'
    WHEN current_setting('azure.extensions', true) IS NOT NULL OR r.names ? 'azure_pg_admin'
        THEN 'Azure'
    WHEN current_setting('rds.logical_replication', true) IS NOT NULL
        OR r.names ? 'rds_superuser' THEN 'Amazon RDS'
END
FROM (SELECT jsonb_agg(rolname) AS names FROM pg_roles WHERE rolname IN (
    'neon_superuser', 'supabase_admin', 'cloudsqlsuperuser', 'azure_pg_admin', 'rds_superuser'
)) r
"""


class Provider(NamedTuple):
    """How things are set on a server. `{name}` and `{value}` are a parameter's, `{role}` a role."""

    name: str
    logical: str
    parameter: str
    replication: str
    #: The address that leads to the server itself.
    direct: str


_AZURE: Final = (
    "az postgres flexible-server parameter set --resource-group GROUP --server-name SERVER "
)

#: A server that is its user's own.
OWN: Final = Provider(
    "",
    "ALTER SYSTEM SET wal_level = 'logical';  -- then restart the server",
    "ALTER SYSTEM SET {name} = {value};  -- then restart the server",
    "ALTER ROLE {role} REPLICATION;",
    "the server's own address and port, not the pooler's",
)

_PROVIDERS: Final = (
    Provider(
        "Amazon RDS",
        "set rds.logical_replication = 1 in the parameter group, then reboot the instance",
        "set {name} = {value} in the parameter group, then reboot the instance",
        "GRANT rds_replication TO {role};",
        "the instance's or cluster's own endpoint, not the RDS Proxy's",
    ),
    Provider(
        "Cloud SQL",
        "gcloud sql instances patch INSTANCE --database-flags=cloudsql.logical_decoding=on"
        "  # and the flags set before, which it drops else; it restarts the instance",
        "gcloud sql instances patch INSTANCE --database-flags={name}={value}"
        "  # and the flags set before, which it drops else; it restarts the instance",
        "ALTER USER {role} WITH REPLICATION;  -- as the user postgres",
        "the instance's own address, or the Cloud SQL Auth Proxy, port 5432",
    ),
    Provider(
        "Azure",
        f"{_AZURE}--name wal_level --value logical  # then restart the server",
        f"{_AZURE}--name {{name}} --value {{value}}  # then restart the server",
        "ALTER ROLE {role} REPLICATION;  -- as the server's administrator",
        "port 5432 of the server; 6432 is its PgBouncer",
    ),
    Provider(
        "Supabase",
        "supabase --experimental --project-ref REF postgres-config update "
        "--config wal_level=logical",
        "supabase --experimental --project-ref REF postgres-config update --config {name}={value}",
        "ALTER ROLE {role} REPLICATION;  -- as postgres, in the SQL editor",
        "the direct connection that the dashboard shows under Connect: db.REF.supabase.co, "
        "port 5432, not pooler.supabase.com",
    ),
    Provider(
        "Neon",
        "turn on Settings > Logical Replication in the Neon console; it restarts the computes",
        "ask Neon's support for {name} = {value}",
        "create the role in the Neon console, not by SQL: such roles may replicate"
        "  # or: ALTER ROLE {role} REPLICATION;",
        "the string without -pooler in its host: in the console under Connect, "
        "with Connection pooling off",
    ),
)


async def provider_of(source: psycopg.AsyncConnection) -> Provider:
    """Return who runs the server; `OWN` where that is nobody we know."""
    row = await (await source.execute(_PROVIDER)).fetchone()
    return next((one for one in _PROVIDERS if row and one.name == row[0]), OWN)


def check_provider(provider: Provider) -> list[Check]:
    """Name the provider, in whose words the remedies are."""
    return [Check("provider", True, provider.name, required=False)] if provider.name else []


def set_parameter(provider: Provider, name: str, value: int) -> str:
    """Return how a parameter of the server is set."""
    return provider.parameter.format(name=name, value=value)


def grant_replication(provider: Provider, role: str) -> str:
    """Return how a role is allowed to replicate."""
    return provider.replication.format(role=quoted(role))

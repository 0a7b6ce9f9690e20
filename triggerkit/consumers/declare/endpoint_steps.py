"""The endpoints of declarations: those of the file, and the route of each task with `on=`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from triggerkit.consumers.declare.declaration import Declared, DeclaredEndpoint, Manager
from triggerkit.consumers.endpoints.model import (
    COLUMNS,
    Endpoint,
    SealedEndpoint,
    placed,
    seal,
    validate,
)
from triggerkit.encryption import Keyring
from triggerkit.errors import ConfigurationError, unknown_name

_FIND = sql.SQL("SELECT {} FROM triggerkit.endpoints e WHERE e.name = %s").format(sql.SQL(COLUMNS))

_UPSERT = """
INSERT INTO triggerkit.endpoints (name, url, headers, signing_secret, local, managed_by)
VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (name) DO UPDATE SET url = excluded.url, headers = excluded.headers,
    signing_secret = excluded.signing_secret, local = excluded.local,
    managed_by = excluded.managed_by
RETURNING id
"""

#: Endpoints of the file that are in it no more, and that no consumer uses.
_OTHERS = """
FROM triggerkit.endpoints e WHERE managed_by = 'file' AND name <> ALL (%s)
    AND NOT EXISTS (SELECT FROM triggerkit.consumers c WHERE c.endpoint_id = e.id)
"""
_REMOVE = f"DELETE {_OTHERS} RETURNING name"
_UNUSED = f"SELECT name {_OTHERS}"

#: What becomes of an endpoint: its verb, its name, and what is to be said of it.
Change = tuple[Literal["create", "change", "delete"], str, tuple[str, ...]]


class EndpointSteps:
    """Makes endpoints as they are declared. `public_url` is where our own routes are reached."""

    def __init__(self, state: psycopg.AsyncConnection, keyring: Keyring, public_url: str) -> None:
        self._state = state
        self._keyring = keyring
        self._public_url = public_url

    async def check(
        self, endpoints: Sequence[DeclaredEndpoint], consumers: Sequence[Declared]
    ) -> None:
        """See that all of them can be made, before any is.

        Raises:
            InvalidEndpoint: an endpoint cannot be used.
            ConfigurationError: a consumer names an endpoint that does not exist.
        """
        for endpoint in endpoints:
            validate(self._wanted(endpoint))
        declared = {endpoint.name for endpoint in endpoints}
        for consumer in consumers:
            name = consumer.definition.endpoint
            if consumer.path is None and name is not None and name not in declared:
                await self._named(consumer, name)

    async def declare(self, endpoints: Sequence[DeclaredEndpoint]) -> list[str]:
        """Make the file's endpoints so; returns what changed.

        Raises:
            InvalidEndpoint: one cannot be used.
            ConfigurationError: one has secrets, and there is no key to encrypt them with.
        """
        done = []
        for declared in endpoints:
            wanted = self._wanted(declared)
            validate(wanted)
            before = await self._find(declared.name)
            if before is None or _differs(before.open(self._keyring), wanted):
                await self._upsert(wanted, "file")
                verb = "created" if before is None else "changed"
                done.append(f"{verb} endpoint {declared.name}")
        return done

    async def changes(
        self, endpoints: Sequence[DeclaredEndpoint], consumers: Sequence[Declared]
    ) -> list[Change]:
        """Return what will be made of endpoints and of the routes of tasks; change nothing."""
        found: list[Change] = []
        for declared in endpoints:
            found += await self._change(self._wanted(declared), is_of_file=True)
        for consumer in consumers:
            if consumer.path is not None:
                found += await self._change(self._route(consumer), is_of_file=False)
        cursor = await self._state.execute(_UNUSED, [[e.name for e in endpoints]])
        gone = ("the file does not declare it any more",)
        return found + [("delete", name, gone) for (name,) in await cursor.fetchall()]

    async def _change(self, wanted: Endpoint, *, is_of_file: bool) -> list[Change]:
        before = await self._find(wanted.name)
        if before is None:
            return [("create", wanted.name, (f"url: {wanted.url}",))]
        if before.url != wanted.url:
            return [("change", wanted.name, (f"url: {before.url} → {wanted.url}",))]
        if before.local != wanted.local:
            how = "local: by a tunnel" if wanted.local else "not local any more"
            return [("change", wanted.name, (how,))]
        if is_of_file and _differs(before.open(self._keyring), wanted):
            return [("change", wanted.name, ("its headers or signing secret",))]
        return []

    async def remove_others(self, endpoints: Sequence[DeclaredEndpoint]) -> list[str]:
        """Delete the file's endpoints that are not declared any more and that nobody uses."""
        cursor = await self._state.execute(_REMOVE, [[e.name for e in endpoints]])
        return [f"deleted endpoint {name}" for (name,) in await cursor.fetchall()]

    async def id_for(self, declared: Declared) -> int | None:
        """Return the endpoint of a consumer: its task's route, the one it names, or None to be
        pulled.

        Raises:
            ConfigurationError: it names an endpoint that does not exist.
        """
        route = await self.ensure_route(declared)
        if route is not None:
            return route
        name = declared.definition.endpoint
        return None if name is None else (await self._named(declared, name)).id

    def _wanted(self, declared: DeclaredEndpoint) -> Endpoint:
        is_ours = declared.url[:1] == "/" and not declared.local
        url = f"{self._public_url}{declared.url}" if is_ours else declared.url
        return placed(
            Endpoint(
                0,
                declared.name,
                url,
                declared.headers,
                declared.signing_secret,
                local=declared.local,
            )
        )

    async def _named(self, declared: Declared, name: str) -> SealedEndpoint:
        found = await self._find(name)
        if found is None:
            unknown = unknown_name("endpoint", name, await self._names())
            raise ConfigurationError(
                f"{declared.where} endpoint: {unknown}; declare it in triggerkit.toml, or create "
                "it with: triggerkit endpoints create"
            )
        return found

    async def ensure_route(self, declared: Declared) -> int | None:
        """Return the endpoint of a consumer that a task declares, at the address of its route
        now."""
        if declared.path is None:
            return None
        return await self._upsert(self._route(declared), "code")

    def _route(self, declared: Declared) -> Endpoint:
        return Endpoint(0, declared.name, f"{self._public_url}{declared.path}")

    async def _find(self, name: str) -> SealedEndpoint | None:
        async with self._state.cursor(row_factory=class_row(SealedEndpoint)) as cursor:
            await cursor.execute(_FIND, [name])
            return await cursor.fetchone()

    async def _names(self) -> list[str]:
        cursor = await self._state.execute("SELECT name FROM triggerkit.endpoints ORDER BY 1")
        return [name for (name,) in await cursor.fetchall()]

    async def _upsert(self, endpoint: Endpoint, managed_by: Manager) -> int:
        sealed = seal(endpoint, self._keyring)
        values = [endpoint.name, endpoint.url, *sealed, endpoint.local, managed_by]
        cursor = await self._state.execute(_UPSERT, values)
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])


def _differs(before: Endpoint, wanted: Endpoint) -> bool:
    return (
        (before.url, before.local) != (wanted.url, wanted.local)
        or dict(before.headers) != dict(wanted.headers)
        or before.signing_secret != wanted.signing_secret
        or before.managed_by != "file"
    )

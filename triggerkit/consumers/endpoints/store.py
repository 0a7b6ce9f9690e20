"""Making, changing and listing endpoints; each change leaves a line in the audit table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
from psycopg import sql
from psycopg.errors import ForeignKeyViolation, UniqueViolation
from psycopg.rows import class_row

from triggerkit.consumers.endpoints.info import EndpointInfo, info_of
from triggerkit.consumers.endpoints.model import (
    COLUMNS,
    Endpoint,
    SealedEndpoint,
    placed,
    seal,
    validate,
)
from triggerkit.encryption import Keyring
from triggerkit.errors import ChangedMeanwhile, EndpointConflict, UnknownEndpoint, unknown_name
from triggerkit.state.audit import note
from triggerkit.state.channels import notify_consumers

#: Raises `InvalidEndpoint` for a URL that pushes may not reach.
UrlCheck = Callable[[str], Awaitable[None]]

_SELECT = sql.SQL(
    "SELECT {} FROM triggerkit.endpoints e WHERE %(name)s::text IS NULL OR e.name = %(name)s "
    "ORDER BY e.name"
).format(sql.SQL(COLUMNS))

_LOCK = sql.SQL("SELECT {} FROM triggerkit.endpoints e WHERE e.name = %s FOR UPDATE").format(
    sql.SQL(COLUMNS)
)

_INSERT = """
INSERT INTO triggerkit.endpoints (name, url, headers, signing_secret, local, managed_by)
VALUES (%s, %s, %s, %s, %s, %s)
"""

_UPDATE = """
UPDATE triggerkit.endpoints SET url = %s, headers = %s, signing_secret = %s, local = %s
WHERE id = %s
"""

_CONSUMERS = """
SELECT e.name, array_agg(c.name ORDER BY c.name)
FROM triggerkit.endpoints e JOIN triggerkit.consumers c ON c.endpoint_id = e.id GROUP BY e.name
"""

#: Salts the fingerprints, so that those of two installations cannot be compared.
_SALT = "SELECT id::text FROM triggerkit.installation ORDER BY created_at, id LIMIT 1"


class EndpointStore:
    """The endpoints of an installation, through one connection in autocommit mode."""

    def __init__(
        self,
        connection: psycopg.AsyncConnection,
        keyring: Keyring,
        check_url: UrlCheck,
        actor: str,
    ) -> None:
        """`actor` is who the audit says it was, such as `cli:alice`."""
        self._connection = connection
        self._keyring = keyring
        self._check_url = check_url
        self._actor = actor

    async def create(self, endpoint: Endpoint) -> None:
        """Store a new endpoint.

        Raises:
            InvalidEndpoint: it cannot be used, or must not be reached.
            EndpointConflict: the name is taken.
            ConfigurationError: it has secrets, and there is no key to encrypt them with.
        """
        endpoint = placed(endpoint)
        validate(endpoint)
        if not endpoint.local:
            await self._check_url(endpoint.url)
        sealed = seal(endpoint, self._keyring)
        row = [endpoint.name, endpoint.url, *sealed, endpoint.local, endpoint.managed_by]
        async with self._connection.transaction():
            try:
                await self._connection.execute(_INSERT, row)
            except UniqueViolation:
                raise EndpointConflict(
                    f"endpoint {endpoint.name!r} exists already; "
                    f"change it with: triggerkit endpoints edit {endpoint.name}"
                ) from None
            await self._changed("create", endpoint.name, _described(endpoint))

    async def edit(
        self,
        name: str,
        change: Callable[[Endpoint], Endpoint],
        looked_at: EndpointInfo | None = None,
    ) -> Endpoint:
        """Store what `change` makes of the endpoint, which nobody else changes meanwhile, nor has
        since it was `looked_at`.

        Raises:
            ChangedMeanwhile: somebody else has.
            UnknownEndpoint, InvalidEndpoint, CannotDecrypt, ConfigurationError
            EndpointConflict: it is declared in code or in a file.
        """
        async with self._connection.transaction():
            sealed_before = await self._own(name)
            if looked_at is not None:
                [now] = await self._infos([sealed_before])
                _require_same(looked_at, now)
            before = sealed_before.open(self._keyring)
            after = placed(change(before))
            validate(after)
            if not after.local and (after.url, after.local) != (before.url, before.local):
                await self._check_url(after.url)
            sealed = seal(after, self._keyring)
            await self._connection.execute(_UPDATE, [after.url, *sealed, after.local, after.id])
            await self._changed("edit", name, _described(after))
        return after

    async def delete(self, name: str) -> None:
        """Delete the endpoint.

        Raises:
            UnknownEndpoint
            EndpointConflict: consumers push to it, or it is declared in code or in a file.
        """
        async with self._connection.transaction():
            endpoint = await self._own(name)
            users = (await self._consumers()).get(name, [])
            try:
                if not users:
                    await self._connection.execute(
                        "DELETE FROM triggerkit.endpoints WHERE id = %s", [endpoint.id]
                    )
            except ForeignKeyViolation:
                users = ["one made just now"]
            if users:
                raise EndpointConflict(
                    f"endpoint {name!r} is used by the consumers {', '.join(users)}; "
                    "delete them or give them another endpoint first"
                )
            await self._changed("delete", name, {})

    async def enable(self, name: str) -> list[str]:
        """Push again to an endpoint that was gone; returns its consumers that were disabled.

        Raises:
            UnknownEndpoint
        """
        async with self._connection.transaction():
            endpoint = await self._locked(name)
            await self._connection.execute(
                "UPDATE triggerkit.endpoints SET disabled_at = NULL WHERE id = %s", [endpoint.id]
            )
            cursor = await self._connection.execute(
                "UPDATE triggerkit.consumers SET state = 'active', last_error = NULL "
                "WHERE endpoint_id = %s AND state = 'disabled' RETURNING name",
                [endpoint.id],
            )
            names = sorted(consumer for (consumer,) in await cursor.fetchall())
            await self._changed("enable", name, {"consumers": names})
        return names

    async def reencrypt(self) -> list[str]:
        """Encrypt with the first key what is under another one; returns the endpoints' names.

        Raises:
            CannotDecrypt: a key is missing; nothing was changed.
        """
        done: list[str] = []
        async with self._connection.transaction():
            await self._connection.execute("LOCK TABLE triggerkit.endpoints IN EXCLUSIVE MODE")
            for sealed in await self._select(None):
                secrets = filter(None, (sealed.headers, sealed.signing_secret))
                if all(self._keyring.is_current(secret) for secret in secrets):
                    continue
                again = seal(sealed.open(self._keyring), self._keyring)
                values = [sealed.url, *again, sealed.local, sealed.id]
                await self._connection.execute(_UPDATE, values)
                done.append(sealed.name)
            if done:
                await self._changed("reencrypt", ", ".join(done), {})
        return done

    async def load(self, name: str) -> SealedEndpoint:
        """Return the endpoint as it is stored.

        Raises:
            UnknownEndpoint
        """
        found = await self._select(name)
        if not found:
            raise await self._unknown(name)
        return found[0]

    async def list_all(self) -> list[EndpointInfo]:
        """Return all endpoints, by name, as they are shown."""
        return await self._infos(await self._select(None))

    async def show(self, name: str) -> EndpointInfo:
        """Return one endpoint as it is shown.

        Raises:
            UnknownEndpoint
        """
        return (await self._infos([await self.load(name)]))[0]

    async def _infos(self, found: list[SealedEndpoint]) -> list[EndpointInfo]:
        consumers = await self._consumers()
        cursor = await self._connection.execute(_SALT)
        row = await cursor.fetchone()
        salt = str(row[0]).encode() if row else b""
        return [info_of(e, self._keyring, salt, consumers.get(e.name, [])) for e in found]

    async def _select(self, name: str | None) -> list[SealedEndpoint]:
        async with self._connection.cursor(row_factory=class_row(SealedEndpoint)) as cursor:
            await cursor.execute(_SELECT, {"name": name})
            return await cursor.fetchall()

    async def _locked(self, name: str) -> SealedEndpoint:
        async with self._connection.cursor(row_factory=class_row(SealedEndpoint)) as cursor:
            await cursor.execute(_LOCK, [name])
            found = await cursor.fetchone()
        if found is None:
            raise await self._unknown(name)
        return found

    async def _own(self, name: str) -> SealedEndpoint:
        """Return the endpoint, locked, if it is not declared elsewhere: there it would come
        back."""
        found = await self._locked(name)
        only_api(name, found.managed_by)
        return found

    async def _unknown(self, name: str) -> UnknownEndpoint:
        cursor = await self._connection.execute("SELECT name FROM triggerkit.endpoints ORDER BY 1")
        known = [known for (known,) in await cursor.fetchall()]
        return UnknownEndpoint(unknown_name("endpoint", name, known))

    async def _consumers(self) -> dict[str, list[str]]:
        cursor = await self._connection.execute(_CONSUMERS)
        return dict(await cursor.fetchall())

    async def _changed(self, action: str, name: str, detail: dict[str, Any]) -> None:
        """Note the change, and have the stream take it in once it is committed."""
        await note(self._connection, self._actor, f"endpoint.{action}", name, detail)
        await notify_consumers(self._connection)


def only_api(name: str, managed_by: str) -> None:
    """Refuse to change what is declared elsewhere: there it would come back.

    Raises:
        EndpointConflict: it is declared in code or in a file.
    """
    if managed_by != "api":
        where = "by on= in code" if managed_by == "code" else "in triggerkit.toml"
        raise EndpointConflict(
            f"endpoint {name!r} is declared {where}; change it there, then: triggerkit apply"
        )


def _require_same(before: EndpointInfo, now: EndpointInfo) -> None:
    if _changeable(before) != _changeable(now):
        raise ChangedMeanwhile(
            f"endpoint {now.name} was changed by somebody else at the same time; look at it again, "
            "then change it"
        )


def _changeable(endpoint: EndpointInfo) -> tuple[object, ...]:
    return endpoint.url, endpoint.headers, endpoint.signing, endpoint.local


def _described(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "url": endpoint.url,
        "headers": sorted(endpoint.headers),
        "signing_secrets": len(endpoint.signing_secrets),
        **({"local": True} if endpoint.local else {}),
    }

"""Consumers made and edited one at a time, by commands and the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from triggerkit.consumers.declare.declaration import Declared, pushed
from triggerkit.consumers.declare.endpoint_steps import EndpointSteps
from triggerkit.consumers.declare.follow import follow
from triggerkit.consumers.declare.manage import Consumers, only_api
from triggerkit.consumers.declare.plan import Stored, loss
from triggerkit.consumers.declare.resolve import resolve
from triggerkit.consumers.declare.slot import ensure_capture_slot
from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.consumers.source.database import (
    OWN_NAMES,
    CaptureNames,
    ensure_database,
    known_database,
)
from triggerkit.encryption import Keyring
from triggerkit.errors import NameTaken, UnknownConsumer, WouldLose
from triggerkit.replication.slot.replication_slot import PUBLICATION, require_logical

#: Sees that the task of a direct consumer is there, and takes what it gets.
CheckTask = Callable[[Declared], None]


def _unchecked(declared: Declared) -> None:
    """Leave it to the stream, which says when there is no such task."""


class Editor:
    """Makes and edits consumers of the database behind `source`, on behalf of `actor`."""

    def __init__(
        self,
        source: psycopg.AsyncConnection,
        state: psycopg.AsyncConnection,
        keyring: Keyring,
        public_url: str,
        actor: str,
        names: CaptureNames = OWN_NAMES,
        check_task: CheckTask = _unchecked,
    ) -> None:
        self._source = source
        self._state = state
        self._endpoints = EndpointSteps(state, keyring, public_url)
        self._consumers = Consumers(state, actor)
        self._names = names
        self._check_task = check_task

    async def create(self, name: str, values: dict[str, Any]) -> list[str]:
        """Make the consumer `name`, `values` being the fields of its definition.

        Returns what is to be warned of.

        Raises:
            ConfigurationError: a field does not fit; the message has its path.
            NameTaken: there is one of this name.
            PreflightFailed: the source cannot be captured from, or a table cannot be followed.
        """
        await self._require_free(name)
        definition = ConsumerDefinition.parse({**values, "name": name}, name)
        declared, warnings = await self._captured(name, definition)
        self._check_task(declared)
        endpoint_id = await self._endpoints.id_for(declared)
        database, identity = await ensure_database(self._source, self._state, self._names)
        warnings += await follow(self._source, self._state, database, definition.table_names)
        await ensure_capture_slot(self._source, self._state, database, identity, names=self._names)
        try:
            await self._consumers.create(database.id, declared, endpoint_id)
        except psycopg.errors.UniqueViolation:
            # Somebody made it after we looked.
            await self._require_free(name)
            raise
        return warnings

    async def resolved(self, name: str, values: dict[str, Any]) -> ConsumerDefinition:
        """Return the definition that `create` would make, held against the source; nothing is made.

        Raises:
            ConfigurationError: a field does not fit; the message has its path.
            PreflightFailed: the source cannot be captured from.
        """
        declared, _ = await self._captured(name, ConsumerDefinition.parse(values, name))
        return declared.definition

    async def edit(
        self,
        name: str,
        values: dict[str, Any],
        *,
        may_lose: bool,
        looked_at: Stored | None = None,
    ) -> list[str]:
        """Set the fields `values` of a consumer; the others stay as they were `looked_at`, or are.
        Returns warnings.

        Raises:
            ChangedMeanwhile: somebody else changed it since it was looked at.
            UnknownConsumer: there is none of this name.
            ConfigurationError: a field does not fit.
            DeclaredElsewhere: it is not a consumer of commands and API.
            WouldLose: the change would lose something, and `may_lose` is false.
                It stays as it was.
        """
        stored = looked_at or await self._consumers.find(name)
        only_api(stored)
        before = stored.definition.as_json()
        if values.get("via", before["via"]) != before["via"]:
            # What the other way does not have.
            for left_out in ("endpoint", "timeout_s", "task"):
                before.pop(left_out, None)
        merged = {**before, **values, "name": name}
        definition = ConsumerDefinition.parse(merged, name)
        declared, warnings = await self._captured(name, definition)
        if _takes(definition) != _takes(stored.definition):
            self._check_task(declared)
        lost = loss(stored.definition, declared.definition)
        if lost is not None and not may_lose:
            raise WouldLose(f"{name}: {lost}; confirm with --yes (in the API: may_lose)")
        endpoint_id = await self._endpoints.id_for(declared)
        database, _ = await ensure_database(self._source, self._state, self._names, [name])
        warnings += await follow(self._source, self._state, database, definition.table_names)
        async with self._state.transaction():
            await self._consumers.require_same(stored)
            await self._consumers.change(stored, declared, endpoint_id)
        await self._set_paused(stored, values.get("paused"))
        return warnings

    async def _set_paused(self, stored: Stored, paused: bool | None) -> None:
        if paused is True and stored.state == "active":
            await self._consumers.pause(stored)
        elif paused is False and stored.state == "paused":
            await self._consumers.resume(stored)

    async def _captured(
        self, name: str, definition: ConsumerDefinition
    ) -> tuple[Declared, list[str]]:
        await require_logical(self._source)
        known = await known_database(self._source, self._state, [name])
        publication = self._names.publication or (known.publication_name if known else PUBLICATION)
        found = await resolve(self._source, definition, name, publication)
        return pushed(Declared(name, found.definition, managed_by="api")), found.warnings

    async def _require_free(self, name: str) -> None:
        try:
            stored = await self._consumers.find(name)
        except UnknownConsumer:
            return
        raise NameTaken(
            f"consumer {name!r} exists already, created by {stored.managed_by}; choose another name"
        )


def _takes(definition: ConsumerDefinition) -> tuple[str | None, str | None, str]:
    """Return the task that is to take messages, and what is made of them before."""
    return definition.task, definition.transform, definition.body

"""The difference between what a project declares and what is there, as steps that `apply` makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg

from triggerkit.consumers.declare.declaration import Declared, Manager
from triggerkit.consumers.declare.preparations import Preparation
from triggerkit.consumers.declare.resolve import resolve
from triggerkit.consumers.declare.topics import TopicSteps
from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.errors import ConfigurationError

Verb = Literal["create", "change", "pause", "resume", "replay", "delete"]

#: Fields whose change moves no cursor and reads no row, and that `plan` shows by their step alone.
_OWN_STEP = frozenset({"paused", "replay_from"})

_STORED = """
SELECT c.id, c.name, c.definition, c.state, c.managed_by, c.replay_from, e.name
FROM triggerkit.consumers c LEFT JOIN triggerkit.endpoints e ON e.id = c.endpoint_id
WHERE c.database_id = %s ORDER BY c.name
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """A consumer that is there."""

    id: int
    name: str
    definition: ConsumerDefinition
    state: str
    managed_by: Manager
    replay_from: str | None
    endpoint: str | None

    @property
    def is_pulled(self) -> bool:
        """Return whether somebody has to ask for its messages."""
        return self.endpoint is None and not self.definition.has_own_way


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One change to one consumer. `loses` says what cannot be had back, None when nothing is."""

    verb: Verb
    name: str
    details: tuple[str, ...] = ()
    loses: str | None = None
    declared: Declared | None = None
    stored: Stored | None = None

    def __str__(self) -> str:
        lines = [f"{self.verb} consumer {self.name}", *(f"    {d}" for d in self.details)]
        if self.loses:
            lines.append(f"    loses: {self.loses}")
        return "\n".join(lines)


@dataclass(slots=True)
class Plan:
    """Steps in the order they are made, what is made before them, and what is to be warned of."""

    preparations: list[Preparation] = field(default_factory=list)
    steps: list[PlanStep] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    topics: TopicSteps = field(default_factory=TopicSteps)

    @property
    def losing(self) -> list[PlanStep | Preparation]:
        """The steps that lose something."""
        steps: list[PlanStep | Preparation] = [*self.preparations, *self.steps]
        return [step for step in steps if step.loses]


async def stored_consumers(state: psycopg.AsyncConnection, database_id: int) -> list[Stored]:
    """Return the database's consumers, by name."""
    cursor = await state.execute(_STORED, [database_id])
    return [
        Stored(id_, name, ConsumerDefinition.from_json(definition), *rest)
        for id_, name, definition, *rest in await cursor.fetchall()
    ]


async def make_plan(
    source: psycopg.AsyncConnection,
    stored: Sequence[Stored],
    declared: Sequence[Declared],
    publication: str,
) -> Plan:
    """Plan the steps that make `declared` so. Consumers of the API stay as they
    are.

    Raises:
        ConfigurationError: a declaration does not fit the source; the message lists all problems.
    """
    plan = Plan()
    problems: list[str] = []
    there = {consumer.name: consumer for consumer in stored}
    for consumer in declared:
        try:
            found = await resolve(source, consumer.definition, consumer.where, publication)
        except ConfigurationError as error:
            problems.append(str(error))
            continue
        plan.warnings += found.warnings
        resolved = Declared(consumer.name, found.definition, consumer.path, consumer.managed_by)
        plan.steps += _steps(resolved, there.get(consumer.name))
    if problems:
        raise ConfigurationError("\n".join(problems))
    names = {consumer.name for consumer in declared}
    gone = [s for s in stored if s.managed_by != "api" and s.name not in names]
    plan.steps += [_deletion(consumer) for consumer in gone]
    return plan


def _steps(declared: Declared, stored: Stored | None) -> list[PlanStep]:
    definition = declared.definition
    if stored is None:
        return [PlanStep("create", declared.name, _described(definition), declared=declared)]
    steps = []
    details = _differences(stored, declared)
    if details:
        loses = loss(stored.definition, definition)
        steps.append(PlanStep("change", declared.name, details, loses, declared, stored))
    replay_from = definition.replay_from
    if replay_from is not None and str(replay_from) != stored.replay_from:
        details = (f"from {replay_from}",)
        steps.append(PlanStep("replay", declared.name, details, None, declared, stored))
    # After a rewind, so that what it waits to deliver is delivered once.
    if definition.paused is True and stored.state == "active":
        steps.append(PlanStep("pause", declared.name, declared=declared, stored=stored))
    if definition.paused is False and stored.state == "paused":
        steps.append(PlanStep("resume", declared.name, declared=declared, stored=stored))
    return steps


def _deletion(stored: Stored) -> PlanStep:
    where = "any task" if stored.managed_by == "code" else "the file"
    return PlanStep(
        "delete",
        stored.name,
        (f"it is not declared by {where} any more",),
        loses="its position in the log and its parked messages",
        stored=stored,
    )


def _described(definition: ConsumerDefinition) -> tuple[str, ...]:
    values = definition.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
    return tuple(f"{name}: {_shown(value)}" for name, value in values.items())


def _differences(stored: Stored, declared: Declared) -> tuple[str, ...]:
    before = stored.definition.model_dump(mode="json")
    after = declared.definition.model_dump(mode="json")
    changed = [
        f"{name}: {_shown(before[name])} → {_shown(after[name])}"
        for name in after
        if name not in _OWN_STEP and before[name] != after[name]
    ]
    if stored.managed_by != declared.managed_by:
        changed.append(f"declared in: {stored.managed_by} → {declared.managed_by}")
    return tuple(changed)


def loss(before: ConsumerDefinition, after: ConsumerDefinition) -> str | None:
    """Describe what changing a consumer's definition loses, None when nothing."""
    if (before.group_by is None) != (after.group_by is None):
        return (
            "its places in the partitions become one: messages that were delivered already may "
            "be delivered again"
        )
    return None


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, dict) and "operator" in value:
        text = "" if value.get("value") is None else f" {value['value']}"
        return f"{value['column']} {value['operator']}{text}"
    return "none" if value is None else str(value)

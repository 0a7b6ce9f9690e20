"""Relations as the recording announces them, and changes as they compare."""

from __future__ import annotations

import orjson

from triggerkit.change import RowChange
from triggerkit.replication.codec.compiled import CompiledRelation
from triggerkit.replication.codec.messages import Relation

PRIMARY_KEYS = {"pairs": ("b", "a"), "keyless": (), "times": ("at",)}


def compiled(relation: Relation) -> CompiledRelation:
    """A relation of the recording, with the primary key that the catalog tells."""
    return CompiledRelation(relation, PRIMARY_KEYS.get(relation.table, ("id",)))


def as_json(changes: list[RowChange]) -> bytes:
    """Make changes comparable: values of the type jsonb do not compare."""
    return orjson.dumps([tuple(change) for change in changes])

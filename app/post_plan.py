"""What a batch of changes asks for, decided without any I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from app.post_embeddings import Draft, Position, Source
from app.post_text import content_hash, embedded_text
from triggerkit import UNCHANGED, Change


class PostLike(Protocol):
    """The columns of a post that matter here."""

    id: int
    title: str | None
    body: str | None


PostT = TypeVar("PostT", bound=PostLike)


@dataclass(slots=True)
class Plan(Generic[PostT]):
    """The end a batch leads to: of several changes of one post only the last counts.

    `changes` has that last change by post id, and each of these ids is in one of the others:
    `drafts` have a text, `removed` have none, `unknown` have one the change does not carry.
    Embeddings not newer than `cleared` go, whatever their post.
    """

    cleared: Position | None = None
    changes: dict[int, Change[PostT]] = field(default_factory=dict)
    drafts: dict[int, Draft] = field(default_factory=dict)
    removed: dict[int, Source] = field(default_factory=dict)
    unknown: dict[int, Source] = field(default_factory=dict)

    def add(self, change: Change[PostT]) -> None:
        """Let `change`, which is newer than all before it, take their place."""
        if change.action == "truncate":
            self._forget(list(self.changes))
            self.cleared = position_of(change)
            return
        post = change.record
        self._forget([post.id])
        self.changes[post.id] = change
        source = Source(post.id, position_of(change), change.metadata.xid)
        if change.action == "delete":
            self.removed[post.id] = source
        elif not carries_text(change):
            self.unknown[post.id] = source
        else:
            self.add_text(source, embedded_text(post.title, post.body))
        self._move(change)

    def add_text(self, source: Source, text: str) -> None:
        """Ask for an embedding of `text`, or for none when it is empty."""
        if text:
            self.drafts[source.post_id] = Draft(source, text, content_hash(text))
        else:
            self.removed[source.post_id] = source

    def complete(self, texts: Mapping[int, str]) -> None:
        """Take the `texts` of unknown posts; the others of them stay unknown."""
        for post_id, text in texts.items():
            self.add_text(self.unknown.pop(post_id), text)

    def _move(self, change: Change[PostT]) -> None:
        """A post whose id was changed leaves its old id behind."""
        old_id = (change.changes or {}).get("id")
        if old_id is not None and int(old_id) != change.record.id:
            self._forget([int(old_id)])
            self.changes[int(old_id)] = change
            self.removed[int(old_id)] = Source(int(old_id), position_of(change))

    def _forget(self, post_ids: Iterable[int]) -> None:
        for post_id in post_ids:
            for by_id in (self.changes, self.drafts, self.removed, self.unknown):
                by_id.pop(post_id, None)


def plan(batch: Iterable[Change[PostT]]) -> Plan[PostT]:
    """Plan a batch, whose changes are in commit order."""
    planned: Plan[PostT] = Plan()
    for change in batch:
        planned.add(change)
    return planned


def position_of(change: Change[PostT]) -> Position:
    """The change's place in the WAL; what the sender does not say counts as 0."""
    metadata = change.metadata
    epoch = metadata.database.epoch if metadata.database is not None else None
    return Position(epoch or 0, metadata.commit_lsn or 0, metadata.commit_idx or 0)


def carries_text(change: Change[PostT]) -> bool:
    """Whether both columns are in the change: a large value that did not change may not be."""
    title: object = change.record.title
    body: object = change.record.body
    if title is UNCHANGED or body is UNCHANGED:
        return False
    unchanged = change.metadata.unchanged
    return not unchanged or not {"title", "body"}.intersection(unchanged)

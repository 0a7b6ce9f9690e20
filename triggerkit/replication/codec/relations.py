"""The relations that the stream has announced, and the changes that its messages tell of."""

from __future__ import annotations

from triggerkit.change import Action, RowChange
from triggerkit.errors import MalformedMessage, UnknownRelation
from triggerkit.replication.codec.compiled import CompiledRelation
from triggerkit.replication.codec.messages import Delete, Insert, RowMessage, Truncate, Update
from triggerkit.replication.codec.pgoutput import ROW_HEADER, decode

_HEADER_SIZE = ROW_HEADER.size


class RelationCache:
    """The relations announced on one connection, by OID; a new announcement replaces the old."""

    def __init__(self) -> None:
        self._relations: dict[int, CompiledRelation] = {}
        self._skipped: set[int] = set()
        self._new_rows: dict[bytes, tuple[CompiledRelation, Action]] = {}

    def put(self, relation: CompiledRelation) -> None:
        """Decode this relation's rows from here on, even if it was skipped before."""
        self._forget(relation.oid)
        self._relations[relation.oid] = relation
        for header, action in relation.new_row_headers().items():
            self._new_rows[header] = (relation, action)

    def skip(self, oid: int) -> None:
        """Pass over this relation's rows from here on: they are no changes for anybody."""
        self._forget(oid)
        self._skipped.add(oid)

    def get(self, oid: int) -> CompiledRelation:
        """Return the relation as it was last announced.

        Raises:
            UnknownRelation: it was not announced on this connection, or it is skipped.
        """
        relation = self._relations.get(oid)
        if relation is None:
            raise UnknownRelation(oid)
        return relation

    def changes(self, message: RowMessage | Truncate) -> list[RowChange]:
        """Return the changes `message` tells of, in order; none for skipped relations.

        Raises:
            UnknownRelation: a relation was not announced on this connection.
            MalformedMessage: as `CompiledRelation.changes`.
        """
        oids = message.relation_oids if isinstance(message, Truncate) else (message.relation_oid,)
        wanted = [oid for oid in oids if oid not in self._skipped]
        return [change for oid in wanted for change in self.get(oid).changes(message)]

    def row_changes(self, payload: bytes) -> list[RowChange]:
        """`changes(decode(payload))` of a row's message ('I', 'U' or 'D'), in half the time.

        Rows of skipped relations are not looked at.

        Raises:
            MalformedMessage: as `decode`, and for messages of other kinds.
            UnknownRelation: as `changes`.
        """
        found = self._new_rows.get(payload[:_HEADER_SIZE])
        if found is not None:
            relation, action = found
            change = relation.new_row(action, payload)
            if change is not None:
                return [change]
        elif self._is_of_skipped(payload):
            return []
        message = decode(payload)
        if isinstance(message, Insert | Update | Delete):
            return self.changes(message)
        raise MalformedMessage("the message does not carry a row")

    def _is_of_skipped(self, payload: bytes) -> bool:
        if len(payload) < _HEADER_SIZE:
            return False
        _, oid, _, _ = ROW_HEADER.unpack_from(payload)
        return oid in self._skipped

    def _forget(self, oid: int) -> None:
        self._skipped.discard(oid)
        relation = self._relations.pop(oid, None)
        if relation is not None:
            for header in relation.new_row_headers():
                del self._new_rows[header]

"""What a real Postgres sent, as `record.py` recorded it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

_RECORDING = json.loads(Path(__file__).with_name("postgres18.json").read_text("utf-8"))


class Step(NamedTuple):
    """SQL and the frames that it caused, all of them XLogData."""

    name: str
    sql: list[str]
    frames: list[bytes]

    @property
    def payloads(self) -> list[bytes]:
        """The pgoutput messages in the frames."""
        return [frame[25:] for frame in self.frames]


class RecordedValue(NamedTuple):
    """A value as Postgres printed it, and as its `to_json` did."""

    sql: str
    type_oid: int
    printed: bytes
    as_json: str


STEPS = {
    step["name"]: Step(step["name"], step["sql"], [bytes.fromhex(hex_) for hex_ in step["frames"]])
    for step in _RECORDING["steps"]
}
PAYLOADS = [payload for step in STEPS.values() for payload in step.payloads]
KEEPALIVE = bytes.fromhex(_RECORDING["keepalives"][0])
VALUES = [
    RecordedValue(value["sql"], value["type_oid"], value["printed"].encode(), value["json"])
    for value in _RECORDING["values"]
]

#: Of each built-in array: its OID, and the OID and the delimiter of its elements.
ARRAY_TYPES = [
    (array, element, delimiter) for array, element, delimiter in _RECORDING["array_types"]
]

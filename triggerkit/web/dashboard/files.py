"""The files that pages load: the stylesheet, the icon and the scripts, ours and those of others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from triggerkit.web.dashboard.guard import HEADERS

FOLDER: Final = Path(__file__).parent / "static"

_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

#: Browsers may keep a file for a year: its address has the version of all of them.
_KEPT = {**HEADERS, "cache-control": "public, max-age=31536000, immutable"}


@dataclass(frozen=True, slots=True)
class File:
    """A file, by its path below the folder."""

    name: str
    content: bytes
    kind: str

    async def answer(self, request: Request) -> Response:  # noqa: ARG002
        """Answer with the file."""
        return Response(self.content, 200, _KEPT, self.kind)


FILES: Final = tuple(
    File(str(path.relative_to(FOLDER).as_posix()), path.read_bytes(), _KINDS[path.suffix])
    for path in sorted(FOLDER.rglob("*"))
    if path.suffix in _KINDS
)

#: Part of the files' addresses: it changes with any of them.
VERSION: Final = hashlib.sha256(
    b"".join(hashlib.sha256(file.content).digest() for file in FILES)
).hexdigest()[:12]

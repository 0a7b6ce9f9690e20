"""Bearer secrets, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse


def has_bearer(request: Request, secrets: Sequence[str]) -> bool:
    """Whether the request carries one of `secrets` as its bearer.

    Digests of bytes are compared: a header that is not ASCII is a wrong secret, not an error.
    """
    # Starlette reads headers as latin-1, so that this gives back the bytes that came.
    header = request.headers.get("authorization", "").encode("latin-1")
    scheme, _, rest = header.partition(b" ")
    given = rest.strip() if scheme.lower() == b"bearer" else b""
    digest = hashlib.sha256(given).digest()
    matches = [
        hmac.compare_digest(digest, hashlib.sha256(secret.encode()).digest()) for secret in secrets
    ]
    return any(matches) and given != b""


def unauthorized() -> JSONResponse:
    """The one answer to a missing and to a wrong secret."""
    return JSONResponse(
        {"error": "Unauthorized"}, status_code=401, headers={"www-authenticate": "Bearer"}
    )

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
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        given = ""
    digest = hashlib.sha256(given.strip().encode("utf-8", "surrogatepass")).digest()
    matches = [
        hmac.compare_digest(digest, hashlib.sha256(secret.encode()).digest()) for secret in secrets
    ]
    return any(matches) and bool(given.strip())


def unauthorized() -> JSONResponse:
    """The one answer to a missing and to a wrong secret."""
    return JSONResponse(
        {"error": "Unauthorized"}, status_code=401, headers={"www-authenticate": "Bearer"}
    )

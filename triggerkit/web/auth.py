"""Authorize calls of a webhook route: a bearer secret or a signature, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse

from triggerkit.settings import Settings
from triggerkit.signature import is_fresh, verify
from triggerkit.tasks.receive.body import BodyRefused
from triggerkit.web.body import read_body

#: The headers of a signed request.
SIGNED_BY = ("webhook-id", "webhook-timestamp", "webhook-signature")


async def authorized_body(request: Request, settings: Settings) -> bytes | None:
    """Return the body of a request with a right bearer or a right signature; None for every other
    one.

    Without a right bearer, the body is read only if all but the signature is in order.

    Raises:
        Refused: the bearer is right, and the body cannot be read.
        ConfigurationError: neither a webhook secret nor a signing secret is set.
    """
    secrets = settings.webhook_signing_secrets
    if has_bearer(request, _bearers(settings)):
        return await read_body(request)
    message_id, timestamp, signature = (request.headers.get(name, "") for name in SIGNED_BY)
    if not (secrets and signature and is_fresh(message_id, timestamp, time.time())):
        return None
    try:
        body = await read_body(request)
    except BodyRefused:
        # What cannot be read has no signature: a stranger learns nothing from the difference.
        return None
    is_right = verify(secrets, message_id, timestamp, signature, body, time.time())
    return body if is_right else None


def has_bearer(request: Request, secrets: Sequence[str]) -> bool:
    """Return whether the request carries one of `secrets` as its bearer.

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
    """Return the answer to a missing and to a wrong secret."""
    return JSONResponse(
        {"error": "Unauthorized"}, status_code=401, headers={"www-authenticate": "Bearer"}
    )


def _bearers(settings: Settings) -> list[str]:
    """Return the bearer secrets that open; none where a signing secret alone is set."""
    if settings.triggerkit_webhook_secret is None and settings.webhook_signing_secrets:
        return []
    return settings.webhook_secrets

"""Signatures of webhooks: HMAC-SHA256 over the id, the time and the body of one attempt.

Source of the format: the Standard Webhooks specification, signatures of version `v1`.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import b64encode
from collections.abc import Sequence
from secrets import token_bytes

from triggerkit.errors import ConfigurationError

#: What every secret begins with.
PREFIX = "whsec_"

#: Bytes of a secret's key: at least, at most.
KEY_BYTES = (24, 64)

#: Seconds by which the time of an attempt may be off, to either side.
TOLERANCE_S = 300

#: An id of visible ASCII. A full stop would make the signed text ambiguous: it separates the parts.
_ID = re.compile(r"[!-\-/-~]{1,256}")

_TIMESTAMP = re.compile(r"[0-9]{1,12}")


def new_secret() -> str:
    """Return a secret of 32 random bytes."""
    return PREFIX + b64encode(token_bytes(32)).decode()


def read_secret(secret: str) -> bytes:
    """Return the key in `secret`: `whsec_` and the base64, padded or not, of 24 to 64 bytes.

    Raises:
        ConfigurationError: it is none; the message does not show it.
    """
    text = secret.removeprefix(PREFIX)
    try:
        key = binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError:
        key = b""
    if not (secret.startswith(PREFIX) and KEY_BYTES[0] <= len(key) <= KEY_BYTES[1]):
        raise ConfigurationError(
            f"a signing secret is {PREFIX} and the base64 of {KEY_BYTES[0]} to {KEY_BYTES[1]} "
            f"bytes; make one with: python -c 'import base64, secrets; "
            f'print("{PREFIX}" + base64.b64encode(secrets.token_bytes(32)).decode())\''
        )
    return key


def sign(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the header `webhook-signature`: one signature per secret, separated by spaces.

    `timestamp` is that of the attempt, in seconds since 1970.

    Raises:
        ConfigurationError: a secret is malformed.
    """
    content = _content(message_id, str(timestamp), body)
    return " ".join(f"v1,{_signature(read_secret(secret), content)}" for secret in secrets)


def is_fresh(message_id: str, timestamp: str, now_s: float) -> bool:
    """Return whether the parts that need no body are well-formed, and the time is near `now_s`."""
    if not (_ID.fullmatch(message_id) and _TIMESTAMP.fullmatch(timestamp)):
        return False
    return abs(int(timestamp) - now_s) <= TOLERANCE_S


def verify(
    secrets: Sequence[str],
    message_id: str,
    timestamp: str,
    signature: str,
    body: bytes,
    now_s: float,
) -> bool:
    """Return whether one of `secrets` made one of the signatures in `signature`, near `now_s`.

    The strings are the headers as they came; whatever is malformed, secrets included, is a no. The
    time this takes does not tell how much of a signature was right.
    """
    if not is_fresh(message_id, timestamp, now_s):
        return False
    content = _content(message_id, timestamp, body)
    expected = [_signature(key, content).encode() for key in _readable(secrets)]
    given = [part.encode("utf-8", "replace") for part in signature.split(" ")]
    matches = [hmac.compare_digest(one, b"v1," + right) for one in given for right in expected]
    return any(matches)


def _content(message_id: str, timestamp: str, body: bytes) -> bytes:
    return b"%b.%b.%b" % (message_id.encode(), timestamp.encode(), body)


def _signature(key: bytes, content: bytes) -> str:
    return b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


def _readable(secrets: Sequence[str]) -> list[bytes]:
    keys: list[bytes] = []
    for secret in secrets:
        try:
            keys.append(read_secret(secret))
        except ConfigurationError:
            continue
    return keys

"""Read secrets as settings have them: several by commas, keys as base64."""

from __future__ import annotations

import base64

from pydantic import SecretStr


def split_secrets(value: SecretStr | None) -> list[str]:
    """Return the secrets of a list, without what surrounds them."""
    if value is None:
        return []
    return [part.strip() for part in value.get_secret_value().split(",") if part.strip()]


def key_bytes(text: str) -> bytes:
    """Return what `text` is the base64 of, in either alphabet, padded or not; nothing if it is
    none."""
    try:
        plain = text.rstrip("=").replace("+", "-").replace("/", "_")
        key = base64.urlsafe_b64decode(plain + "=" * (-len(plain) % 4))
    except ValueError:
        return b""
    # The decoder skips characters that are not of the alphabet.
    return key if base64.urlsafe_b64encode(key).rstrip(b"=") == plain.encode() else b""

"""Values encrypted at rest: AES-256-GCM, bound to the place they are stored at, keys that rotate.

A sealed value is a version byte, the 8-byte id of its key, a 12-byte random nonce, then what
AES-GCM makes of it. The id tells which key opens it and nothing about the key.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import SecretBytes

from triggerkit.errors import CannotDecrypt, ConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = b"\x01"
_ID_BYTES = 8
_NONCE_BYTES = 12
_HEAD_BYTES = len(_VERSION) + _ID_BYTES


class Keyring:
    """The keys of TRIGGERKIT_ENCRYPTION_KEY: the first one encrypts, each of them decrypts."""

    def __init__(self, keys: Sequence[SecretBytes]) -> None:
        """`keys` are of 32 bytes each; without any, nothing can be encrypted or decrypted.

        Raises:
            ConfigurationError: there are keys, and no package to encrypt with.
        """
        self._ciphers = {
            _key_id(key.get_secret_value()): _cipher(key.get_secret_value()) for key in keys
        }

    def encrypt(self, plain: bytes, place: str) -> bytes:
        """Seal `plain` for `place`, such as `endpoint/billing/headers`: elsewhere it does not open.

        Raises:
            ConfigurationError: there is no key.
        """
        for key_id, cipher in self._ciphers.items():
            head, nonce = _VERSION + key_id, os.urandom(_NONCE_BYTES)
            return head + nonce + cipher.encrypt(nonce, plain, head + place.encode())
        raise ConfigurationError(
            f"{place} is stored encrypted, and TRIGGERKIT_ENCRYPTION_KEY is not set; make a key "
            "with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )

    def decrypt(self, sealed: bytes, place: str) -> bytes:
        """Return what was sealed for `place`.

        Raises:
            CannotDecrypt: its key is missing, or it was changed or moved; the message names it.
        """
        head, rest = sealed[:_HEAD_BYTES], sealed[_HEAD_BYTES:]
        if not self._ciphers:
            raise CannotDecrypt(
                f"{place} is encrypted, and TRIGGERKIT_ENCRYPTION_KEY is not set; "
                "set it to the key it was encrypted with"
            )
        from cryptography.exceptions import InvalidTag

        cipher = self._ciphers.get(head[1:])
        if head[:1] != _VERSION or cipher is None:
            raise CannotDecrypt(
                f"{place} is encrypted with a key (id {head[1:].hex()}) that is not in "
                f"TRIGGERKIT_ENCRYPTION_KEY (ids {', '.join(k.hex() for k in self._ciphers)}); "
                "add that key to the list, behind the first, or store the value anew"
            )
        try:
            return cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], head + place.encode())
        except (InvalidTag, ValueError):
            raise CannotDecrypt(
                f"{place} is not what was encrypted for this place; store the value anew"
            ) from None

    def is_current(self, sealed: bytes) -> bool:
        """Return whether `sealed` was made with the first key."""
        return next(iter(self._ciphers), None) == sealed[len(_VERSION) : _HEAD_BYTES]


def _cipher(key: bytes) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise ConfigurationError(
            "TRIGGERKIT_ENCRYPTION_KEY is set, and the package that encrypts is not installed: "
            "install it with: pip install 'triggerkit[encryption]'"
        ) from error
    return AESGCM(key)


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"triggerkit key id" + key).digest()[:_ID_BYTES]

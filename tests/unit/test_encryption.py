"""Encryption at rest: what opens, and what is said when something does not."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretBytes

from triggerkit.encryption import Keyring
from triggerkit.errors import CannotDecrypt, ConfigurationError
from triggerkit.settings import Settings
from triggerkit.supervisor.dev.folder import StateFolder

PLACE = "endpoint/billing/headers"
OLD, NEW = b"o" * 32, b"n" * 32


def keyring(*keys: bytes) -> Keyring:
    return Keyring([SecretBytes(key) for key in keys])


# The first cipher imports its package.
@settings(deadline=None)
@given(st.binary(), st.text(st.characters(codec="utf-8")))
def test_what_was_sealed_opens_at_its_place(plain: bytes, place: str) -> None:
    sealed = keyring(NEW).encrypt(plain, place)
    assert keyring(NEW).decrypt(sealed, place) == plain
    assert len(plain) < 4 or plain not in sealed


def test_the_same_value_is_sealed_differently_each_time() -> None:
    ring = keyring(NEW)
    assert ring.encrypt(b"value", PLACE) != ring.encrypt(b"value", PLACE)


def test_a_value_moved_to_another_place_does_not_open() -> None:
    sealed = keyring(NEW).encrypt(b"value", PLACE)
    with pytest.raises(CannotDecrypt, match="endpoint/other/headers"):
        keyring(NEW).decrypt(sealed, "endpoint/other/headers")


@given(st.data())
def test_a_changed_or_shortened_value_does_not_open(data: st.DataObject) -> None:
    sealed = keyring(NEW).encrypt(b"value", PLACE)
    at = data.draw(st.integers(0, len(sealed) - 1))
    flipped = sealed[:at] + bytes([sealed[at] ^ data.draw(st.integers(1, 255))]) + sealed[at + 1 :]
    for wrong in (flipped, sealed[:at]):
        with pytest.raises(CannotDecrypt):
            keyring(NEW).decrypt(wrong, PLACE)


def test_while_keys_rotate_the_first_encrypts_and_each_decrypts() -> None:
    before = keyring(OLD).encrypt(b"value", PLACE)
    rotating = keyring(NEW, OLD)
    assert rotating.decrypt(before, PLACE) == b"value"
    assert not rotating.is_current(before)
    after = rotating.encrypt(b"value", PLACE)
    assert rotating.is_current(after)
    assert keyring(NEW).decrypt(after, PLACE) == b"value"


def test_a_key_that_is_gone_is_named_by_its_id_and_the_setting() -> None:
    sealed = keyring(OLD).encrypt(b"value", PLACE)
    with pytest.raises(CannotDecrypt, match=r"headers.*TRIGGERKIT_ENCRYPTION_KEY") as raised:
        keyring(NEW).decrypt(sealed, PLACE)
    assert sealed[1:9].hex() in str(raised.value)
    assert raised.value.exit_code == 2


def test_without_a_key_nothing_opens_and_nothing_is_sealed() -> None:
    sealed = keyring(OLD).encrypt(b"value", PLACE)
    with pytest.raises(CannotDecrypt, match="TRIGGERKIT_ENCRYPTION_KEY is not set"):
        keyring().decrypt(sealed, PLACE)
    with pytest.raises(ConfigurationError, match=r"TRIGGERKIT_ENCRYPTION_KEY.*token_urlsafe"):
        keyring().encrypt(b"value", PLACE)


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_keys_are_read_in_either_alphabet_padded_or_not(encode: Callable[[bytes], bytes]) -> None:
    key = bytes(range(224, 256))
    text = encode(key).decode()
    given = f"{text}, {text.rstrip('=')}"
    keys = Settings.parse({"TRIGGERKIT_ENCRYPTION_KEY": given}).encryption_keys
    assert [k.get_secret_value() for k in keys] == [key, key]


@pytest.mark.parametrize(
    "wrong",
    ["hunter2hunter2", base64.b64encode(b"k" * 31).decode(), base64.b64encode(b"k" * 33).decode(),
     base64.b64encode(b"k" * 32).decode()[:-3] + "!!=", "ключ" * 11],
)  # fmt: skip
def test_a_key_of_another_size_is_refused_with_how_to_make_one(wrong: str) -> None:
    right = base64.b64encode(NEW).decode()
    with pytest.raises(ConfigurationError, match=r"TRIGGERKIT_ENCRYPTION_KEY.*token_url") as raised:
        Settings.parse({"TRIGGERKIT_ENCRYPTION_KEY": f"{right},{wrong}"})
    assert wrong not in str(raised.value)
    assert right not in str(raised.value)


def test_keys_print_as_stars() -> None:
    settings = Settings.parse({"TRIGGERKIT_ENCRYPTION_KEY": base64.b64encode(NEW).decode()})
    shown = repr(settings) + repr(settings.encryption_keys) + repr(keyring(NEW).__dict__)
    assert "nnnn" not in shown
    assert base64.b64encode(NEW).decode()[:8] not in shown


def test_the_key_that_dev_makes_is_one(tmp_path: Path) -> None:
    with StateFolder(tmp_path) as folder:
        made = folder.secrets()
    assert len(Settings.parse(made).encryption_keys) == 1

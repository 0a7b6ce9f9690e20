"""Signatures: as the Standard Webhooks library makes and checks them, and no for all else."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from triggerkit.errors import ConfigurationError
from triggerkit.signature import KEY_BYTES, PREFIX, TOLERANCE_S, new_secret, sign, verify

NOW = 1_790_000_000

ids = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="."), min_size=1
)
keys = st.binary(min_size=KEY_BYTES[0], max_size=KEY_BYTES[1])
bodies = st.text().map(str.encode)


def secret_of(key: bytes) -> str:
    return PREFIX + base64.b64encode(key).decode()


SECRET = secret_of(b"k" * 32)
NEXT = secret_of(b"n" * 32)
SIGNED = sign([SECRET], "msg_1", NOW, b"{}")


def is_right(
    *,
    secrets: tuple[str, ...] = (SECRET,),
    message_id: str = "msg_1",
    timestamp: str = str(NOW),
    signature: str = SIGNED,
    body: bytes = b"{}",
    now_s: float = NOW,
) -> bool:
    return verify(secrets, message_id, timestamp, signature, body, now_s)


@given(keys, ids, bodies)
def test_the_library_accepts_what_we_sign(key: bytes, message_id: str, body: bytes) -> None:
    now = int(time.time())
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": sign([secret_of(key)], message_id, now, body),
    }
    Webhook(secret_of(key)).verify(body, headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_of(key)).verify(body + b" ", headers, json_parse=False)


@given(keys, ids, bodies, st.integers(0, 2**33))
def test_we_accept_what_the_library_signs(
    key: bytes, message_id: str, body: bytes, at: int
) -> None:
    when = datetime.fromtimestamp(at, UTC)
    signature = Webhook(secret_of(key)).sign(message_id, when, body.decode())
    assert verify([secret_of(key)], message_id, str(at), signature, body, at)
    assert signature == sign([secret_of(key)], message_id, at, body)


@given(st.sampled_from(["id", "timestamp", "signature", "body", "secret"]), st.data())
def test_any_change_makes_it_a_no(part: str, data: st.DataObject) -> None:
    values = {
        "id": "msg_1",
        "timestamp": str(NOW),
        "signature": SIGNED,
        "body": '{"a": 1}',
        "secret": SECRET,
    }
    values["signature"] = sign([SECRET], "msg_1", NOW, values["body"].encode())
    old = values[part]
    at = data.draw(st.integers(0, len(old) - 1))
    new = old[:at] + data.draw(st.text(max_size=2)) + old[at + 1 :]
    # Padding of a secret, and spaces around a signature, are no change of what is meant.
    assume(new.rstrip("=") != old.rstrip("=") and new.strip(" ") != old)
    # The surrogates that text may have are no text of a header.
    assume(new.isprintable())
    values[part] = new
    assert not verify(
        [values["secret"]],
        values["id"],
        values["timestamp"],
        values["signature"],
        values["body"].encode(),
        NOW,
    )


@given(st.text(), st.text(), st.text(), st.text(), st.binary())
def test_whatever_comes_is_a_no_and_not_an_error(
    secret: str, message_id: str, timestamp: str, signature: str, body: bytes
) -> None:
    assert not verify([secret, SECRET], message_id, timestamp, signature, body, NOW)


@pytest.mark.parametrize("off_s", [-TOLERANCE_S, -1, 0, 1, TOLERANCE_S])
def test_five_minutes_to_either_side_are_tolerated(off_s: int) -> None:
    assert is_right(now_s=NOW + off_s)


@pytest.mark.parametrize("off_s", [-TOLERANCE_S - 1, TOLERANCE_S + 1, 10**9])
def test_and_no_more(off_s: int) -> None:
    assert not is_right(now_s=NOW + off_s)


@pytest.mark.parametrize(
    "timestamp",
    ["", "-1", "+1790000000", " 1790000000", "1790000000.0", "1_790_000_000", "1e9", "٣", "nan",
     "9" * 5000, "1790000000\n"],
)  # fmt: skip
def test_a_time_that_is_not_plain_seconds_is_a_no(timestamp: str) -> None:
    assert not is_right(timestamp=timestamp)


def test_a_full_stop_in_the_id_cannot_move_a_part_of_the_body_into_the_id() -> None:
    signed = sign([SECRET], "a", NOW, b"1790000000.{}")
    assert is_right(message_id="a", body=b"1790000000.{}", signature=signed)
    assert not is_right(message_id=f"a.{NOW}", body=b"{}", signature=signed)


@pytest.mark.parametrize(
    "signature",
    ["", "v1", "v1,", ",", SIGNED[3:], SIGNED.replace("v1,", "v1a,"), SIGNED.replace("v1,", "v2,"),
     SIGNED.lower(), SIGNED.rstrip("="), SIGNED + "=", SIGNED.replace("v1,", "v1, "), "v1,é",
     "\ud800"],
)  # fmt: skip
def test_a_malformed_signature_is_a_no(signature: str) -> None:
    assert not is_right(signature=signature)


def test_one_right_signature_among_others_is_enough() -> None:
    assert is_right(signature=f"v1a,x v1,AAAA {SIGNED} nonsense")


def test_while_secrets_rotate_both_sides_may_have_either() -> None:
    both = sign([NEXT, SECRET], "msg_1", NOW, b"{}")
    assert both.split(" ")[1] == SIGNED
    assert is_right(signature=both, secrets=(SECRET,))
    assert is_right(signature=both, secrets=(NEXT,))
    assert is_right(secrets=(NEXT, SECRET))
    assert not is_right(secrets=(NEXT,))
    assert not is_right(secrets=())


@pytest.mark.parametrize(
    "secret",
    ["", PREFIX, "a" * 40, secret_of(b"k" * 23), secret_of(b"k" * 65), PREFIX + "!" * 44,
     secret_of(b"k" * 32) + "\n", PREFIX + "é" * 44],
)  # fmt: skip
def test_a_malformed_secret_signs_nothing_and_opens_nothing(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="whsec_") as raised:
        sign([secret], "msg_1", NOW, b"{}")
    assert not secret or secret == PREFIX or secret not in str(raised.value)
    assert not is_right(secrets=(secret,))


def test_secrets_of_every_allowed_length_do_padded_or_not() -> None:
    for size in range(KEY_BYTES[0], KEY_BYTES[1] + 1):
        secret = secret_of(b"k" * size)
        signed = sign([secret.rstrip("=")], "msg_1", NOW, b"{}")
        assert is_right(secrets=(secret,), signature=signed)


def test_a_new_secret_is_one_and_differs_from_the_last() -> None:
    first, second = new_secret(), new_secret()
    assert first != second
    assert is_right(secrets=(first,), signature=sign([first], "msg_1", NOW, b"{}"))

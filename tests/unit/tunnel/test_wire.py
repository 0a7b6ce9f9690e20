"""What is said over a tunnel: bodies in pieces, and what nobody can read."""

from __future__ import annotations

import pytest

from triggerkit.tunnel.wire import (
    MOST_BODIES,
    PIECE_BYTES,
    Bodies,
    Hello,
    Malformed,
    Push,
    Reply,
    Unanswered,
    pieces_of,
    read_from_client,
    read_from_server,
    read_piece,
    written,
)


def push(number: int, body: bytes) -> Push:
    return Push(number, "local_endpoint", "/push", {"webhook-id": "msg_1"}, len(body), 30.0)


@pytest.mark.parametrize("size", [1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 5_000_000])
def test_a_body_comes_together_again(size: int) -> None:
    body = bytes(i % 251 for i in range(size))
    bodies = Bodies(size)
    said = push(7, body)
    assert bodies.begin(said) is None
    found = [bodies.add(piece) for piece in pieces_of(7, body)]
    assert found[:-1] == [None] * (len(found) - 1)
    assert found[-1] == (said, body)


def test_bodies_that_are_mixed_come_apart() -> None:
    one, two = b"a" * 100_000, b"b" * 50_000
    bodies = Bodies(len(one))
    bodies.begin(push(1, one))
    bodies.begin(push(2, two))
    pieces = [*pieces_of(1, one), *pieces_of(2, two)]
    # Each in its order, one beside the other.
    pieces.sort(key=lambda piece: len(piece))
    found = [found for piece in pieces if (found := bodies.add(piece)) is not None]
    assert {said.number: body for said, body in found} == {1: one, 2: two}  # type: ignore[attr-defined]


def test_an_empty_body_has_no_pieces() -> None:
    assert Bodies(10).begin(push(1, b"")) == b""
    assert list(pieces_of(1, b"")) == []


def test_what_does_not_fit_together_is_malformed() -> None:
    bodies = Bodies(10)
    with pytest.raises(Malformed):
        bodies.begin(push(1, b"x" * 11))
    with pytest.raises(Malformed):
        bodies.begin(Reply(1, 200, {}, -1))
    with pytest.raises(Malformed):
        bodies.add(next(pieces_of(1, b"x")))
    bodies.begin(push(1, b"xy"))
    with pytest.raises(Malformed):
        bodies.begin(push(1, b"xy"))
    with pytest.raises(Malformed):
        bodies.add(next(pieces_of(1, b"xyz")))
    with pytest.raises(Malformed):
        read_piece(b"\x00" * 8)


def test_bodies_under_way_are_bounded() -> None:
    bodies = Bodies(10)
    for number in range(MOST_BODIES):
        bodies.begin(push(number, b"x"))
    with pytest.raises(Malformed):
        bodies.begin(push(MOST_BODIES, b"x"))


def test_what_is_said_is_read() -> None:
    hello = Hello(1, "abc", {"local_endpoint": 3001}, share=True)
    assert read_from_client(written(hello)) == hello
    said = Unanswered(3, "no", 502, is_suspect=True)
    assert read_from_client(written(said)) == said
    assert read_from_server(written(push(1, b"x"))) == push(1, b"x")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"type": "push"}', '{"type": "nothing"}', "[" * 100_000,
     '{"type": "taken", "size": "much"}', '{"type": "taken", "size": 1e400}', b"\xff"],
)  # fmt: skip
def test_what_cannot_be_read_is_malformed(text: str | bytes) -> None:
    with pytest.raises(Malformed):
        read_from_client(text)

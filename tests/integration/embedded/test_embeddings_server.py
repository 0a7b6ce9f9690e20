"""The local embeddings server answers the real OpenAI client as OpenAI does."""

from __future__ import annotations

import base64
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import numpy as np
import openai
import pytest
from openai import OpenAI

from triggerkit import lifeline
from triggerkit.embedded.embeddings import DIMENSIONS, MAX_BODY_BYTES, MAX_INPUTS, MODEL

REQUESTED = "text-embedding-3-small"


@dataclass(frozen=True, slots=True)
class Server:
    process: subprocess.Popen[str]
    held: lifeline.Lifeline
    base_url: str


def start_server() -> Server:
    held = lifeline.hold()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        fd, port = listening.fileno(), listening.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "triggerkit.embedded.embeddings", "--fd", str(fd)],
            pass_fds=[fd, held.read_fd],
            env=held.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    return Server(process, held, f"http://127.0.0.1:{port}/v1")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = start_server()
    yield server
    server.process.terminate()
    output, _ = server.process.communicate()
    server.held.close()
    assert output == "", "the server prints nothing on normal requests"


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(api_key="any", base_url=server.base_url, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.base_url, timeout=60) as http:
        yield http


def vectors(client: OpenAI, texts: list[str], **options: int) -> np.ndarray:
    answer = client.embeddings.create(model=REQUESTED, input=texts, **options)  # type: ignore[arg-type]
    return np.array([item.embedding for item in answer.data])


def test_both_encodings_give_the_same_normalised_vector(client: OpenAI) -> None:
    create = client.embeddings.create
    as_base64 = create(model=REQUESTED, input="A row changes.", encoding_format="base64")
    as_float = create(model=REQUESTED, input="A row changes.", encoding_format="float")
    by_default = create(model=REQUESTED, input="A row changes.")
    raw = base64.b64decode(str(as_base64.data[0].embedding))
    expected = np.frombuffer(raw, dtype="<f4")
    assert len(expected) == DIMENSIONS
    assert np.linalg.norm(expected) == pytest.approx(1)
    assert np.array(as_float.data[0].embedding, dtype="<f4") == pytest.approx(expected, abs=1e-7)
    assert np.array(by_default.data[0].embedding, dtype="<f4") == pytest.approx(expected)


def test_similar_texts_are_closer_than_unlike_ones(client: OpenAI) -> None:
    cat, kitten, database = vectors(
        client,
        [
            "A cat sleeps on the warm sofa.",
            "A kitten naps on a couch.",
            "Postgres writes each transaction to its log.",
        ],
    )
    assert cat @ kitten > cat @ database + 0.2


def test_a_text_has_the_same_vector_alone_and_in_any_company(client: OpenAI) -> None:
    texts = ["short", "a somewhat longer text " * 20, "x"]
    together = vectors(client, texts)
    for text, vector in zip(texts, together, strict=True):
        assert vectors(client, [text])[0] == pytest.approx(vector, abs=1e-6)


def test_the_answer_has_openais_shape(http: httpx2.Client) -> None:
    response = http.post("/embeddings", json={"model": "any", "input": ["one two", "three"]})
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    assert [*body] == ["object", "data", "model", "usage"]
    assert (body["object"], body["model"]) == ("list", MODEL)
    assert [[*item] for item in body["data"]] == [["object", "index", "embedding"]] * 2
    assert [item["index"] for item in body["data"]] == [0, 1]
    assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_models_are_listed(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]


def test_fewer_dimensions_are_a_cut_vector_of_length_1(client: OpenAI) -> None:
    [whole] = vectors(client, ["A row changes."])
    [cut] = vectors(client, ["A row changes."], dimensions=64)
    assert len(cut) == 64
    assert cut == pytest.approx(whole[:64] / np.linalg.norm(whole[:64]), abs=1e-6)


def test_a_long_text_is_embedded_as_the_sum_of_its_parts(client: OpenAI) -> None:
    sentence = "the quick brown fox jumps over the lazy dog "
    [once, often] = vectors(client, [sentence.strip(), (sentence * 10_000).strip()])
    assert once @ often > 0.9999


@pytest.mark.parametrize("text", ["a" * 300_000, "é" * 100_000, "\n" * 50_000, "\x00", "🦊", " "])
def test_odd_texts_have_vectors_too(client: OpenAI, text: str) -> None:
    [vector] = vectors(client, [text])
    assert np.linalg.norm(vector) == pytest.approx(1)


def test_the_largest_number_of_texts_is_accepted(client: OpenAI) -> None:
    start = time.monotonic()
    assert vectors(client, [f"text number {i}" for i in range(MAX_INPUTS)]).shape == (2048, 256)
    print(f"{MAX_INPUTS} short texts in {time.monotonic() - start:.2f} s")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": "x"}, "model"),
        ({"input": "x", "model": 5}, "model"),
        ({"model": "m"}, "input"),
        ({"model": "m", "input": None}, "input"),
        ({"model": "m", "input": ""}, "input"),
        ({"model": "m", "input": []}, "input"),
        ({"model": "m", "input": ["good", ""]}, "input"),
        ({"model": "m", "input": ["good", 5]}, "input"),
        ({"model": "m", "input": [1, 2, 3]}, "input"),
        ({"model": "m", "input": [[1, 2, 3]]}, "input"),
        ({"model": "m", "input": ["x"] * (MAX_INPUTS + 1)}, "input"),
        ({"model": "m", "input": "x", "dimensions": 0}, "dimensions"),
        ({"model": "m", "input": "x", "dimensions": DIMENSIONS + 1}, "dimensions"),
        ({"model": "m", "input": "x", "dimensions": True}, "dimensions"),
        ({"model": "m", "input": "x", "dimensions": "64"}, "dimensions"),
        ({"model": "m", "input": "x", "encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_a_wrong_parameter_is_named(
    http: httpx2.Client, fields: dict[str, object], param: str
) -> None:
    response = http.post("/embeddings", json=fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert [*error] == ["message", "type", "param", "code"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, None)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": "m", "input": "\xff"}'])
def test_a_malformed_body_is_refused(http: httpx2.Client, body: bytes) -> None:
    response = http.post("/embeddings", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_the_client_raises_its_own_error(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=REQUESTED, input="")
    assert caught.value.param == "input"


def test_a_body_beyond_the_limit_is_refused(http: httpx2.Client) -> None:
    body = json.dumps({"model": "m", "input": "x" * MAX_BODY_BYTES}).encode()
    response = http.post("/embeddings", content=body)
    assert response.status_code == 413
    assert "error" in response.json()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/embeddings", 405), ("POST", "/models", 405), ("POST", "/chat/completions", 404)],
)
def test_other_urls_are_refused_in_openais_shape(
    http: httpx2.Client, method: str, path: str, status: int
) -> None:
    response = http.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]["message"] == f"Invalid URL ({method} /v1{path})"


def test_requests_during_the_start_wait_for_the_model() -> None:
    server = start_server()
    start = time.monotonic()
    with OpenAI(api_key="any", base_url=server.base_url, max_retries=0) as client:
        assert client.embeddings.create(model=REQUESTED, input="early").data
    print(f"answered {time.monotonic() - start:.2f} s after the start")
    server.process.send_signal(signal.SIGINT)
    output, _ = server.process.communicate(timeout=10)
    server.held.close()
    assert (server.process.returncode, output) == (0, "")


def test_the_server_ends_with_its_parent() -> None:
    server = start_server()
    with OpenAI(api_key="any", base_url=server.base_url, max_retries=0) as client:
        client.models.list()
    server.held.close()
    server.process.communicate(timeout=5)
    assert server.process.returncode == lifeline.PARENT_GONE


def test_a_port_can_be_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "triggerkit.embedded.embeddings", "--port", str(port)]
    )
    try:
        assert answers(f"http://127.0.0.1:{port}/v1/models")
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            return httpx2.get(url).status_code == 200
        except httpx2.ConnectError:
            time.sleep(0.02)
    return False

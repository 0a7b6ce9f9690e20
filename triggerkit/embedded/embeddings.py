"""A local server with OpenAI's `/v1/embeddings`, so that the reference task runs without a key.

`python -m triggerkit.embedded.embeddings --port 9000` listens on the loopback address; with
`--fd N` on a listening socket inherited from the parent. Connections are answered once the model
is loaded. Source of the wire format: OpenAI API reference, "Embeddings".
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, cast

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from triggerkit import lifeline

if TYPE_CHECKING:
    from triggerkit.embedded.model import Model

#: What answers name as the model, whatever the request named.
MODEL: Final = "wordllama-l2-supercat-256"
#: The length of its vectors; requests may ask for less.
DIMENSIONS: Final = 256
#: OpenAI's limit of texts in one request.
MAX_INPUTS: Final = 2048
#: The longest request accepted, in bytes.
MAX_BODY_BYTES: Final = 32 * 1024 * 1024

#: Requests embedded at a time: tokenizing one uses every core already.
_CONCURRENCY = 2
_KEEP_ALIVE_S = 75
_DRAIN_S = 3


class InvalidEmbeddingRequest(HTTPException):
    """A request that OpenAI would refuse, with the name of the wrong parameter."""

    def __init__(self, message: str, param: str | None = None, status_code: int = 400) -> None:
        super().__init__(status_code, message)
        self.param = param


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A valid request; `texts` has at least one member and none is empty."""

    texts: list[str]
    dimensions: int
    encoding: Literal["float", "base64"]


def parse_request(body: bytes) -> EmbeddingRequest:
    """Parse the body of `POST /v1/embeddings`.

    Raises:
        Refused: it is not valid; token arrays, which need OpenAI's tokenizer, are not either.
    """
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidEmbeddingRequest("We could not parse the JSON body of your request.") from None
    if not isinstance(fields, dict):
        raise InvalidEmbeddingRequest("The body of the request must be a JSON object.")
    if not isinstance(fields.get("model"), str) or not fields["model"]:
        raise InvalidEmbeddingRequest("you must provide a model parameter", "model")
    return EmbeddingRequest(_texts(fields.get("input")), _dimensions(fields), _encoding(fields))


def _texts(given: object) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise InvalidEmbeddingRequest(
            "'input' must be a string or a list of at least one string.", "input"
        )
    if len(texts) > MAX_INPUTS:
        raise InvalidEmbeddingRequest(f"'input' must have at most {MAX_INPUTS} members.", "input")
    if not all(isinstance(text, str) for text in texts):
        raise InvalidEmbeddingRequest(
            "'input' must hold strings; this server takes no token arrays.", "input"
        )
    if not all(texts):
        raise InvalidEmbeddingRequest("'input' cannot hold an empty string.", "input")
    return cast("list[str]", texts)


def _dimensions(fields: dict[str, object]) -> int:
    given = fields.get("dimensions")
    if given is None:
        return DIMENSIONS
    if type(given) is not int or not 1 <= given <= DIMENSIONS:
        raise InvalidEmbeddingRequest(
            f"'dimensions' must be an integer from 1 to {DIMENSIONS} for {MODEL}.", "dimensions"
        )
    return given


def _encoding(fields: dict[str, object]) -> Literal["float", "base64"]:
    match fields.get("encoding_format"):
        case None | "float":
            return "float"
        case "base64":
            return "base64"
    raise InvalidEmbeddingRequest(
        "'encoding_format' must be one of 'float' and 'base64'.", "encoding_format"
    )


def answer(model: Model, request: EmbeddingRequest) -> bytes:
    """Embed the texts and return the body of the response; takes the time of a CPU."""
    vectors, tokens = model.embed(request.texts, request.dimensions)
    if request.encoding == "base64":
        encoded = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    else:
        encoded = list(vectors)
    data = [
        {"object": "embedding", "index": index, "embedding": embedding}
        for index, embedding in enumerate(encoded)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return orjson.dumps(
        {"object": "list", "data": data, "model": MODEL, "usage": usage},
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise InvalidEmbeddingRequest(
                f"The request is longer than {MAX_BODY_BYTES} bytes.", None, 413
            )
    return bytes(body)


async def _embeddings(request: Request) -> Response:
    body = await _read_body(request)
    async with request.app.state.slots:
        parsed = await asyncio.to_thread(parse_request, body)
        content = await asyncio.to_thread(answer, request.app.state.model, parsed)
    return Response(content, media_type="application/json")


async def _models(_: Request) -> Response:
    model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "wordllama"}
    return _json({"object": "list", "data": [model]})


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, InvalidEmbeddingRequest):
        return _error(error.status_code, error.detail, error.param)
    status = cast("HTTPException", error).status_code
    return _error(status, f"Invalid URL ({request.method} {request.url.path})", None)


async def _broken(_: Request, error: Exception) -> Response:
    message = f"The embedding failed: {type(error).__name__}."
    return _error(500, message, None, kind="server_error")


def _error(
    status: int, message: str, param: str | None, kind: str = "invalid_request_error"
) -> Response:
    error = {"message": message, "type": kind, "param": param, "code": None}
    return _json({"error": error}, status)


def _json(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


@contextlib.asynccontextmanager
async def _loaded(app: Starlette) -> AsyncIterator[None]:
    app.state.slots = asyncio.Semaphore(_CONCURRENCY)
    app.state.model = await asyncio.to_thread(_load_model)
    yield


def _load_model() -> Model:
    # Imported here: the model's libraries take 0.4 s, which importers of the constants must not.
    from triggerkit.embedded.model import Model

    return Model.load(DIMENSIONS)


def create_app() -> Starlette:
    """Return the ASGI application; its start-up loads the model."""
    return Starlette(
        routes=[
            Route("/v1/embeddings", _embeddings, methods=["POST"]),
            Route("/v1/models", _models, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _refused, Exception: _broken},
        lifespan=_loaded,
    )


def _listen(options: argparse.Namespace) -> socket.socket:
    if options.fd is not None:
        return socket.socket(fileno=options.fd)
    return socket.create_server(("127.0.0.1", options.port))


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, or until the parent that holds the lifeline is gone."""
    parser = argparse.ArgumentParser(description="A local OpenAI-compatible embeddings API.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--fd", type=int, help="a listening socket inherited from the parent")
    where.add_argument("--port", type=int, help="a port of the loopback address")
    options = parser.parse_args(arguments)
    lifeline.watch()
    # Before the model's libraries are imported, which would log every request's progress.
    logging.basicConfig(level=logging.WARNING)
    config = uvicorn.Config(
        create_app(),
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_DRAIN_S,
    )
    with _listen(options) as listening, contextlib.suppress(KeyboardInterrupt):
        # Not `fd=`: uvicorn would take the socket for a Unix one and leave Nagle's delay on.
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()

"""A bare route on Starlette that counts what is posted to it.

`python -m bench.rivals.receiver` prints its port. `GET /` answers the messages it took and when
the last of them came, in seconds since 1970.
"""

from __future__ import annotations

import socket
import time
from urllib.request import urlopen

import orjson
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

taken = {"messages": 0, "last_at": 0.0}


async def take(request: Request) -> JSONResponse:
    """Read a batch, a JSON array or one in `data`, and count it."""
    body = orjson.loads(await request.body())
    taken["messages"] += len(body["data"] if isinstance(body, dict) else body)
    taken["last_at"] = time.time()
    return JSONResponse({})


def taken_at(url: str) -> dict[str, float]:
    """Ask a receiver of another process."""
    with urlopen(url, timeout=30) as answer:
        return dict(orjson.loads(answer.read()))


async def tell(request: Request) -> JSONResponse:  # noqa: ARG001
    """Answer what was taken."""
    return JSONResponse(taken)


async def serve() -> None:
    """Serve on any free port of the loopback address."""
    app = Starlette(routes=[Route("/", take, methods=["POST"]), Route("/", tell)])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(f"{listening.getsockname()[1]} ready", flush=True)
        # A connection is kept while the other contestants are measured.
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=3600)
        await uvicorn.Server(config).serve(sockets=[listening])


if __name__ == "__main__":
    # Its sockets send at once; asyncio's would wait 40 ms, as these do not say that they are TCP's.
    uvloop.run(serve())

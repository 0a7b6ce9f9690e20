"""Everything by IPv6: source, state, Redis, `serve`, probes, and an endpoint of somebody else's."""

from __future__ import annotations

import http.client
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.acceptance.project import eventually
from tests.acceptance.running_system import System
from tests.capture.rig.server import Server
from tests.ports import free_port
from tests.redis_server import redis_server, require_redis
from tests.servers import Servers
from triggerkit.settings import Settings

#: What listens on loopback by IPv6 alone.
HOST = "::1"


class _Receiver(ThreadingHTTPServer):
    address_family = socket.AF_INET6


@contextmanager
def receiver() -> Iterator[tuple[int, queue.Queue[bytes]]]:
    """A receiver at an address of IPv6: its port, and the bodies that it gets."""
    bodies: queue.Queue[bytes] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.put(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with _Receiver((HOST, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], bodies
        server.shutdown()


def is_ready(port: str) -> bool:
    connection = http.client.HTTPConnection(HOST, int(port), timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.mark.timeout(180)
def test_a_system_works_by_ipv6_alone(servers: Servers, tmp_path: Path, settings: Settings) -> None:
    try:
        socket.create_server((HOST, 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    port = free_port()
    postgres = Server(18)
    postgres.start(listen_addresses=HOST, port=str(port))
    state = conninfo_to_dict(postgres.new_database())["dbname"]
    redis = redis_server(servers, tmp_path, require_redis(), host=HOST)
    try:
        with redis as redis_port, receiver() as (receiver_port, bodies):
            given = {
                **settings.environment(),
                "DATABASE_URL": f"postgresql://postgres:hunter2@[{HOST}]:{port}/postgres",
                "TRIGGERKIT_STATE_URL": f"postgresql://postgres@[{HOST}]:{port}/{state}",
                "REDIS_URL": f"redis://[{HOST}]:{redis_port}/0",
                "TRIGGERKIT_HOST": f"[{HOST}]",
                "TRIGGERKIT_HEALTH_HOST": HOST,
                "TRIGGERKIT_ALLOW_NETWORKS": "::1/128",
            }
            system = System(tmp_path, given)
            health = {"stream": str(free_port()), "worker": str(free_port())}
            try:
                applied = system.command("apply")
                assert applied.returncode == 0, applied.stderr
                system.start("serve")
                for name, health_port in health.items():
                    system.start(name, TRIGGERKIT_HEALTH_PORT=health_port)
                system.be_well()
                for probed in (*health.values(), system.environment["TRIGGERKIT_PORT"]):
                    eventually(partial(is_ready, probed), 20, probed)
                checked = system.command("check")
                assert checked.returncode == 0, checked.stdout
                assert f"[{HOST}]:{port}" in checked.stdout
                assert f"[{HOST}]:{redis_port}" in checked.stdout
                assert "hunter2" not in checked.stdout
                url = f"http://[{HOST}]:{receiver_port}/rows"
                made = system.command("endpoints", "create", "theirs", url)
                assert made.returncode == 0, made.stderr
                tested = system.command("endpoints", "test", "theirs")
                assert tested.returncode == 0, tested.stdout + tested.stderr
                bodies.get(timeout=10)
                made = system.command(
                    "consumers", "create", "copies", "--table", "public.items",
                    "--endpoint", "theirs",
                )  # fmt: skip
                assert made.returncode == 0, made.stderr
                key = system.insert("another")
                body = orjson.loads(bodies.get(timeout=20))
                assert str(body["record"]["id"]) == key
                system.mended(key)
            finally:
                system.stop_all()
    finally:
        postgres.stop()

"""A server by TLS: its certificate is checked against the authorities that the system trusts, and
no certificate of the client's is needed."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.certificates import Authority
from triggerkit.errors import CannotConnect
from triggerkit.state.connect import connect, connect_blocking, pinned

PLACES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@asynccontextmanager
async def with_tls(database_url: str, certificate: Path) -> AsyncIterator[str]:
    """The URL of what ends TLS before the server, as the server does: the embedded one has none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    parts = conninfo_to_dict(database_url)
    socket = f"{parts['host']}/.s.PGSQL.{parts.get('port', 5432)}"

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The client asks whether there is TLS.
        await reader.readexactly(8)
        writer.write(b"S")
        await writer.drain()
        await writer.start_tls(context)
        there, back = await asyncio.open_unix_connection(socket)
        await asyncio.gather(forward(reader, back), forward(there, writer), return_exceptions=True)

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield make_conninfo(
            database_url, host="localhost", hostaddr="127.0.0.1", port=port,
            sslmode="verify-full", sslrootcert="system",
        )  # fmt: skip


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority that signs; no variable says where authorities are."""
    for place in PLACES:
        # What is set meanwhile is gone afterwards.
        monkeypatch.setenv(place, "")
        monkeypatch.delenv(place)
    return Authority.make(tmp_path, "authority")


def trust(monkeypatch: pytest.MonkeyPatch, file: Path | None) -> None:
    """Have the system trust the authorities of a file, as Python sees it."""
    cafile = None if file is None else str(file)
    paths = ssl.get_default_verify_paths()._replace(cafile=cafile, capath=None)  # type: ignore[arg-type]
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)


def is_tls(database_url: str, certificate: Path) -> bool:
    async def scenario() -> bool:
        async with (
            with_tls(database_url, certificate) as url,
            await connect(url, "test") as connection,
        ):
            return connection.pgconn.ssl_in_use

    return asyncio.run(scenario())


def test_the_systems_authorities_are_known(
    database_url: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(monkeypatch, authority.file)
    assert is_tls(database_url, authority.sign(tmp_path, "localhost"))


def test_another_authority_is_not_trusted(
    database_url: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(monkeypatch, Authority.make(tmp_path, "other").file)
    with pytest.raises(CannotConnect, match="certificate verify failed"):
        is_tls(database_url, authority.sign(tmp_path, "localhost"))


def test_where_authorities_are_said_to_be_is_where_they_are_looked_for(
    database_url: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(monkeypatch, None)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    assert is_tls(database_url, authority.sign(tmp_path, "localhost"))
    assert "SSL_CERT_DIR" not in os.environ


@contextmanager
def in_background(database_url: str, certificate: Path) -> Iterator[str]:
    """`with_tls` in a thread."""
    urls: list[str] = []
    loop, ready = asyncio.new_event_loop(), threading.Event()
    ended = asyncio.Event()

    async def serve() -> None:
        async with with_tls(database_url, certificate) as url:
            urls.append(url)
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    try:
        assert ready.wait(20)
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(20)
        loop.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_a_home_that_may_not_be_looked_into_is_no_obstacle(
    database_url: str, authority: Authority, tmp_path: Path
) -> None:
    """As that of root is in a container, or any under systemd's ProtectHome."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    tmp_path.chmod(0o755)
    with in_background(database_url, authority.sign(tmp_path, "localhost")) as url:
        url = make_conninfo(url, sslmode="require", sslrootcert="")
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setuid(54321)
                os.environ["HOME"] = str(home)
                with connect_blocking(pinned(url, "test")) as connection:
                    os.write(theirs, str(connection.pgconn.ssl_in_use).encode())
            except Exception as error:
                os.write(theirs, str(error).encode())
            finally:
                os._exit(0)
        os.close(theirs)
        os.waitpid(child, 0)
        said = os.read(ours, 1000).decode()
        os.close(ours)
    assert said == "True"

"""A server by TLS, whose certificate is checked against the authorities that the system trusts."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.certificates import Authority
from triggerkit.errors import CannotConnect
from triggerkit.state.connect import connect

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

"""A real MariaDB, where the distribution has one."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pymysql
import pytest

from tests.acceptance.project import eventually
from tests.ports import free_port


def running_mariadb(folder: Path) -> Iterator[str]:
    """The URL of a database of a server of its own, with its data in `folder`."""
    server, install = shutil.which("mariadbd", path=_PATH), shutil.which("mariadb-install-db")
    if server is None or install is None:
        reason = "there is no MariaDB: apt-get install mariadb-server"
        if os.environ.get("TRIGGERKIT_TEST_REQUIRE"):
            pytest.fail(reason)
        pytest.skip(reason)
    data, port = folder / "data", free_port()
    user = f"--user={getpass.getuser()}"
    subprocess.run(
        [
            install,
            "--no-defaults",
            user,
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    options = [user, f"--datadir={data}", f"--port={port}", "--bind-address=127.0.0.1"]
    with (folder / "mariadb.log").open("wb") as log:
        process = subprocess.Popen(
            [server, "--no-defaults", *options, f"--socket={folder}/socket"],
            stdout=log,
            stderr=log,
        )
    try:
        eventually(lambda: _answers(port), 30, "MariaDB answers")
        yield f"mysql://root@127.0.0.1:{port}/shop"
    finally:
        process.terminate()
        process.wait(30)


_PATH = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"


def _answers(port: int) -> bool:
    try:
        with closing(pymysql.connect(host="127.0.0.1", port=port, user="root")) as connection:
            connection.cursor().execute("CREATE DATABASE shop")
    except pymysql.err.OperationalError:
        return False
    return True

"""Embedded servers that run for a test."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from triggerkit.embedded.account import running_as_root
from triggerkit.embedded.postgres import EmbeddedPostgres

root_only = pytest.mark.skipif(not running_as_root(), reason="needs root")


def remove_relocated(state_dir: Path) -> None:
    if (state_dir / "postgres").is_symlink():
        shutil.rmtree((state_dir / "postgres").resolve().parent)


@asynccontextmanager
async def running(state_dir: Path) -> AsyncIterator[EmbeddedPostgres]:
    postgres = EmbeddedPostgres(state_dir)
    await postgres.start()
    try:
        yield postgres
    finally:
        await postgres.stop()


async def query(postgres: EmbeddedPostgres, statement: str) -> list[tuple[object, ...]]:
    async with await psycopg.AsyncConnection.connect(postgres.url) as connection:
        return await (await connection.execute(statement.encode())).fetchall()


async def execute(postgres: EmbeddedPostgres, statement: str) -> None:
    async with await psycopg.AsyncConnection.connect(postgres.url) as connection:
        await connection.execute(statement.encode())

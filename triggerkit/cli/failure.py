"""Explain errors of servers, clients and the system in a line: what is wrong, and the remedy."""

from __future__ import annotations

import asyncio

import psycopg
import redis
from psycopg import errors
from psycopg_pool import PoolTimeout

from triggerkit.errors import CannotConnect, PreflightFailed, TriggerkitError, leaves_of
from triggerkit.settings import Settings
from triggerkit.state.faults import OTHER_SCHEMA
from triggerkit.state.migrate import schema_problem


def explained(error: BaseException) -> TriggerkitError | None:
    """Return `error` as one of ours, None where it can only be a mistake of triggerkit."""
    for leaf in leaves_of(error):
        if isinstance(leaf, TriggerkitError):
            return leaf
        found = _of_postgres(leaf) if isinstance(leaf, psycopg.Error) else _of_others(leaf)
        if found is not None:
            return found
    return None


def _of_postgres(error: psycopg.Error) -> TriggerkitError | None:
    said = error.diag.message_primary or _first_line(error)
    if isinstance(error, errors.InsufficientPrivilege):
        return PreflightFailed(
            f"Postgres refuses: {said}; `triggerkit check` says what to grant the role"
        )
    if isinstance(error, OTHER_SCHEMA):
        problem = asyncio.run(schema_problem(Settings.load().state_dsn))
        return None if problem is None else PreflightFailed(problem)
    if isinstance(error, errors.DiskFull | errors.ReadOnlySqlTransaction):
        return PreflightFailed(f"Postgres cannot write: {said}; make room, or connect to a primary")
    if isinstance(error, errors.RaiseException):
        return PreflightFailed(
            f"a trigger of the database refuses: {said}; let the role of DATABASE_URL pass, or "
            "give the state a database of its own by TRIGGERKIT_STATE_URL"
        )
    if isinstance(error, psycopg.OperationalError | PoolTimeout):
        return CannotConnect(
            f"the connection to Postgres failed: {said}; check that the server runs, and try again"
        )
    return None


def _of_others(error: BaseException) -> TriggerkitError | None:
    if isinstance(error, redis.exceptions.NoPermissionError):
        return PreflightFailed(
            f"Redis refuses: {_first_line(error)}; `triggerkit check` says what to allow its user"
        )
    if isinstance(error, redis.AuthenticationError):
        return CannotConnect(
            "Redis refuses the user or password; correct them in REDIS_URL: "
            "redis://user:password@host:6379/0"
        )
    if isinstance(error, redis.RedisError):
        return CannotConnect(
            f"Redis failed: {_first_line(error)}; check that it runs and that REDIS_URL is correct"
        )
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if isinstance(error.filename, str) else ""
        return TriggerkitError(f"{place}{error.strerror}; correct that and start again")
    return None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

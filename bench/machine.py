"""What a figure depends on: the machine, its load, and the versions of what was measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

from triggerkit.embedded.programs import postgres_folder, redis_program

#: Packages on the way of a change.
PACKAGES = (
    "triggerkit",
    "dramatiq",
    "httptools",
    "orjson",
    "psycopg",
    "psycopg-pool",
    "pydantic",
    "redis",
    "starlette",
    "uvicorn",
    "uvloop",
)


def machine() -> dict[str, str | int]:
    """The machine, without anything that names it."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": _first_number("/proc/meminfo", "MemTotal") // 1024,
        "cpu": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "kernel": f"{platform.system()} {platform.release()}",
    }


def load_average() -> list[float]:
    """How busy the machine was over the last 1, 5 and 15 minutes, in processes."""
    return [round(load, 2) for load in os.getloadavg()]


def versions() -> dict[str, str]:
    """The versions of Python, the packages and the servers."""
    postgres = postgres_folder(None) / "bin" / "postgres"
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "postgres": _printed_version(postgres),
        "redis-server": _printed_version(redis_program()),
    }


def _printed_version(program: Path) -> str:
    printed = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"\d+(\.\d+)+", printed.stdout)
    return found.group() if found else printed.stdout.strip()


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _first_number(path: str, name: str) -> int:
    return int(_field(path, name).split()[0])

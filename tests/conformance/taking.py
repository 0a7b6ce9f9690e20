"""Tasks that take rows of the table `items`, for the tests of both ways of delivery."""

from __future__ import annotations

import os
import time
from typing import Any

from pydantic import BaseModel, field_validator

from triggerkit import Change, Task, task


class Item(BaseModel):
    """A row; one without a name does not fit, and some names are trouble."""

    id: int
    name: str

    @field_validator("name")
    @classmethod
    def _read(cls, name: str) -> str:
        if name == "raises":
            raise RuntimeError(name)
        if name == "hangs":
            time.sleep(1000)
        if name == "ends":
            os._exit(1)
        return name


class Named(BaseModel):
    """What a transform makes of a row."""

    called: str


@task(queue="items", retry=7, ttl=3600, priority=3)
def take_batch(batch: list[Change[Item]]) -> None: ...


@task
def take_one(change: Change[Item]) -> None: ...


@task
def take_named(named: Named) -> None: ...


@task
def take_event(event: dict[str, Any]) -> None: ...


def name_it(change: Change[dict[str, Any]]) -> dict[str, str]:
    return {"called": change.record["name"]}


def is_wanted(change: Change[dict[str, Any]]) -> bool:
    return bool(change.record["name"] != "unwanted")


TASKS: list[Task[Any, Any, Any]] = [take_batch, take_one, take_named, take_event]

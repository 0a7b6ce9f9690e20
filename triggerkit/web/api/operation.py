"""One operation of the management API: the same row makes its route and its description."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar, get_type_hints

import psycopg
from pydantic import BaseModel, ConfigDict, TypeAdapter

from triggerkit.consumers.retention import Outlook, Policy
from triggerkit.encryption import Keyring
from triggerkit.events.source import View
from triggerkit.runs.client import Client
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.state.reading import Reads
from triggerkit.tasks.task import Task

Method = Literal["GET", "POST", "PATCH", "DELETE"]

#: Who the audit says it was.
ACTOR = "api"

#: Seconds that a request waits for a connection to the state database.
POOL_TIMEOUT_S = 5.0

T = TypeVar("T")

#: Looks at the captured databases: by the state, by the source or without it, by the policy of the
#: log, and by the standby that has the slot, or without one. It is given from above, since it looks
#: by the checks of the processes.
DatabaseHealthOf = Callable[
    [Reads, Reads | None, Policy, Reads | None],
    Awaitable[tuple[Sequence[Any], Sequence[Outlook]]],
]

#: Looks at topics of events as who reads them finds them, with their bounds.
ViewOf = Callable[[Collection[str]], Awaitable[View]]


class Given(BaseModel):
    """A request's body or query; an unknown field is refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Page(BaseModel, Generic[T]):
    """A list, or a part of it: with `next`, the query parameter `cursor` asks for what follows."""

    data: list[T]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """The resources an operation works with."""

    client: Client
    tasks: Sequence[Task[Any, Any, Any]]
    database_health: DatabaseHealthOf | None = None
    view_of: ViewOf | None = None

    @property
    def policy(self) -> Policy:
        """Return how long the log keeps what, and how much."""
        return Policy(self.settings.log_keep, self.settings.log_max_bytes)

    @property
    def settings(self) -> Settings:
        """The settings of the process."""
        return self.client.settings

    @property
    def keyring(self) -> Keyring:
        """Return the keys that decrypt the endpoints."""
        return Keyring(self.settings.encryption_keys)

    @asynccontextmanager
    async def state(self) -> AsyncIterator[psycopg.AsyncConnection]:
        """Yield a connection to the state database, in autocommit mode."""
        async with self.client.pool.connection(timeout=POOL_TIMEOUT_S) as connection:
            yield connection

    @asynccontextmanager
    async def source(self) -> AsyncIterator[psycopg.AsyncConnection]:
        """Yield a connection of this call alone to the source database.

        Raises:
            CannotConnect: it does not answer.
        """
        async with await connect(self.settings.source_dsn, "triggerkit api") as connection:
            yield connection


@dataclass(frozen=True)
class Operation:
    """A method of a path below `/api/v1`, answered by `handle`, or by another part of the API.

    `handle` takes the `Call`, the path's parameters by their names, `body` and `query` where it has
    them; their annotations and that of what it returns are the types of request and answer.
    `errors` are the statuses that it answers beyond those that every operation of its kind does.
    """

    method: Method
    path: str
    handle: Callable[..., Awaitable[Any]] | None
    summary: str
    status: int = 200
    errors: tuple[int, ...] = ()
    #: What it does, and its types by name; of a function they are its own.
    about: str = ""
    types: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.handle is not None:
            types = get_type_hints(self.handle, include_extras=True)
            object.__setattr__(self, "types", types)
            object.__setattr__(self, "about", inspect.getdoc(self.handle) or self.summary)

    @property
    def name(self) -> str:
        """Its name in the description: unique, since method and path are."""
        words = [w.strip("{}") for w in self.path.split("/") if w]
        return "_".join([self.method.lower(), *words])

    @cached_property
    def answer(self) -> TypeAdapter[Any]:
        """Return what its answer is made by, when it is first asked for: it takes a millisecond."""
        return TypeAdapter(self.types["return"])

    @property
    def body(self) -> type[BaseModel] | None:
        """The model of its body."""
        return self.types.get("body")

    @property
    def query(self) -> type[BaseModel] | None:
        """The model of its query."""
        return self.types.get("query")

    @property
    def parameters(self) -> dict[str, TypeAdapter[Any]]:
        """The parameters in its path."""
        return {
            word[1:-1]: TypeAdapter(self.types[word[1:-1]])
            for word in self.path.split("/")
            if word.startswith("{")
        }

    @property
    def statuses(self) -> tuple[int, ...]:
        """Every status of an error that it may answer."""
        always = {401, 422, 500, 503, *self.errors}
        if self.body is not None:
            always |= {400, 408, 413, 415}
        if self.parameters:
            always.add(404)
        if self.method != "GET":
            always.add(403)
        return tuple(sorted(always))

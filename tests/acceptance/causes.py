"""Twelve causes of "this row has no effect": each is planted in a running system that is well."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import psycopg

from tests.acceptance.project import eventually
from tests.acceptance.running_system import System

#: Seconds after the plant by which a cause is told; of a worker that died without a word, as if on
#: another machine.
TOLD_S = 5.0
DEAD_WORKER_S = 15.0


@dataclass(frozen=True)
class Cause:
    """Plants a cause and returns the key of the row that has no effect by it.

    `code` is what `why` says then, and `status` a text that `status` has. What is to be done before
    the remedy helps is `mend`; the row gets its effect `by` a command, by itself, or never, since
    it is as somebody wants it.
    """

    plant: Callable[[System], str]
    code: str
    status: str
    mend: Callable[[System], object] = lambda system: None
    by: Literal["command", "itself", "nothing"] = "command"
    within_s: float = TOLD_S

    @property
    def name(self) -> str:
        """What it is called."""
        return self.plant.__name__.removeprefix("_")


def _slot_is_dropped(system: System) -> str:
    system.execute(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
        "WHERE database = current_database() AND active_pid IS NOT NULL"
    )
    eventually(lambda: _dropped(system), 10, "a slot that is dropped")
    return system.insert("one")


def _dropped(system: System) -> bool:
    try:
        system.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            "WHERE database = current_database()"
        )
    except psycopg.errors.ObjectInUse:
        return False
    return system.execute(
        "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"
    ) == [(0,)]


def _table_is_not_published(system: System) -> str:
    system.execute("ALTER PUBLICATION triggerkit DROP TABLE public.items")
    return system.insert("one")


def _row_is_filtered(system: System) -> str:
    return system.insert("draft")


def _route_refuses_the_secret(system: System) -> str:
    system.stop("serve")
    system.start("serve", TRIGGERKIT_WEBHOOK_SECRET="another secret of the routes")
    return system.insert("one")


def _endpoint_is_down(system: System) -> str:
    system.stop("serve")
    return system.insert("one")


def _message_is_parked(system: System) -> str:
    system.behave("strict")
    return system.insert("one")


def _key_is_held(system: System) -> str:
    system.behave("hang")
    key = system.insert("one")
    executing = "SELECT count(*) FROM triggerkit.runs WHERE status = 'executing'"
    eventually(lambda: system.execute(executing) == [(1,)], 10, "a run that hangs")
    system.execute("UPDATE public.items SET name = 'two' WHERE id = %s", int(key))
    return key


def _queue_is_paused(system: System) -> str:
    assert system.command("queues", "pause", "copies").returncode == 0
    return system.insert("one")


def _worker_is_stopped(system: System) -> str:
    system.stop("worker")
    return system.insert("one")


def _worker_is_killed(system: System) -> str:
    system.stop("worker", signal.SIGKILL)
    return system.insert("one")


def _task_raises(system: System) -> str:
    system.behave("raise")
    return system.insert("one")


def _api_is_busy(system: System) -> str:
    system.behave("busy")
    return system.insert("one")


def _text_is_empty(system: System) -> str:
    return system.insert("")


def _be_well(system: System) -> None:
    system.behave("well")


#: The worker that is killed stands for one that is away, as the one that is stopped does.
CAUSES = (
    Cause(_slot_is_dropped, "slot_missing", "is gone"),
    Cause(_table_is_not_published, "not_published", "lacks public.items"),
    Cause(_row_is_filtered, "filtered", "only rows with name != draft", by="nothing"),
    Cause(_route_refuses_the_secret, "endpoint_unauthorized", "answered 401"),
    Cause(_endpoint_is_down, "endpoint_down", "failing since"),
    Cause(_message_is_parked, "parked", "used up its attempts", _be_well),
    Cause(_key_is_held, "key_held", "1 executing"),
    Cause(_queue_is_paused, "queue_paused", "paused since"),
    Cause(_worker_is_stopped, "no_worker", "no worker is running"),
    Cause(_worker_is_killed, "no_worker", "no worker is running", within_s=DEAD_WORKER_S),
    Cause(_task_raises, "failed", "1 run failed since", _be_well),
    Cause(_api_is_busy, "api_away", "Error code: 429", _be_well, by="itself"),
    Cause(_text_is_empty, "no_text", "triggerkit why public.items KEY", by="nothing"),
)


def repair(system: System, cause: Cause, key: str) -> None:
    """Make the system well again, by the remedy that `why` gives, and wait for the row's effect."""
    cause.mend(system)
    if cause.by == "nothing":
        return
    remedy = system.why("public.items", key)["remedy"]
    # A run that was going to be tried again may be done already.
    if cause.by == "command" and remedy is not None:
        system.type(remedy)
    system.mended(key, 30)

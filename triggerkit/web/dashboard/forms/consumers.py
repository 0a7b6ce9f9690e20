"""Make, change and delete consumers, by what commands and the API do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from triggerkit.consumers.declare.followed import FollowedColumn, read_followed
from triggerkit.consumers.declare.manage import Consumers, only_api
from triggerkit.consumers.declare.plan import Stored
from triggerkit.consumers.definition import TableName
from triggerkit.consumers.source.database import find_database
from triggerkit.consumers.source.tables import MOST_TABLES, known_tables
from triggerkit.consumers.trace.preview import Preview, Tried, preview
from triggerkit.errors import ConfigurationError, TriggerkitError, WouldLose
from triggerkit.log.json_object import show_object
from triggerkit.web.api.captured.consumers import editor_of
from triggerkit.web.api.captured.endpoints import list_endpoints
from triggerkit.web.api.problems import status_of
from triggerkit.web.dashboard.forms.consumer_fields import (
    ACTIONS,
    FIELDS,
    OPERATORS,
    close_up,
    fields_of,
    new_fields,
    values_of,
)
from triggerkit.web.dashboard.forms.seen import changed_since, outdated, shown_with
from triggerkit.web.dashboard.forms.typed import Typed
from triggerkit.web.dashboard.page import ACTOR, Answer, Asked, Moved, Route, Shown

#: Messages of a preview that are shown.
SHOWN_MESSAGES = 10

#: Stands for a name that is not typed yet, in what is looked at without it.
_UNNAMED = "preview"


async def show_new(asked: Asked) -> Answer:
    """Show the form of a new consumer; the URL may name its tables and its endpoint."""
    tables = asked.request.query_params.getlist("table")
    return await _form(asked, new_fields(tables, asked.query.get("endpoint", "")))


async def make(asked: Asked) -> Answer:
    """Make a consumer; or, as the button says, show what the form would be of."""
    return await _taken(asked, None)


async def show_edit(asked: Asked) -> Answer:
    """Show the form of a consumer that there is, unless it is declared elsewhere."""
    stored = await _own(asked)
    fields = fields_of(stored.definition, stored.endpoint)
    return await _form(asked, shown_with(Typed(fields), fields), stored)


async def edit(asked: Asked) -> Answer:
    """Change a consumer; or, as the button says, show what the form would be of."""
    return await _taken(asked, await _own(asked))


async def show_delete(asked: Asked) -> Answer:
    """Show what is lost with a consumer, and ask for its name."""
    stored = await _own(asked)
    return await _deletion(asked, stored, Typed({}))


async def delete(asked: Asked) -> Answer:
    """Delete a consumer whose name was typed once more."""
    stored = await _own(asked)
    typed = Typed(asked.form)
    if typed.text("name") != stored.name:
        wrong = {"name": f"this is not its name: type {stored.name} to delete it"}
        return await _deletion(asked, stored, replace(typed, problems=wrong), 422)
    async with asked.call.state() as state:
        await Consumers(state, ACTOR).delete(stored)
    return Moved(asked.link("consumers"))


async def _taken(asked: Asked, stored: Stored | None) -> Answer:
    """Do what the pressed button says with the form that was sent."""
    # The first step has the tables alone.
    before = new_fields(()).fields if stored is None else {}
    typed = close_up(Typed({**before, **asked.form}))
    name = typed.text("name") if stored is None else stored.name
    pressed = typed.text("do")
    try:
        if pressed == "preview":
            return await _form(asked, typed, stored, tried=await _tried(asked, typed, name))
        if pressed == "save":
            now = {} if stored is None else fields_of(stored.definition, stored.endpoint)
            if stored is not None and (changes := changed_since(typed, now)):
                return await _form(asked, outdated(typed, now, changes), stored, status=409)
            return await _saved(asked, typed, name, stored)
    except TriggerkitError as error:
        # Nothing was made: what was typed stays, with what is wrong with it.
        where = name or _UNNAMED if pressed == "preview" else name
        refused = typed.refused(error, where, FIELDS)
        status = status_of(error)
        return await _form(
            asked, refused, stored, status=status, loses=isinstance(error, WouldLose)
        )
    return await _form(asked, typed, stored)


async def _saved(asked: Asked, typed: Typed, name: str, stored: Stored | None) -> Answer:
    values = values_of(typed)
    async with asked.call.source() as source, asked.call.state() as state:
        editor = editor_of(asked.call, source, state, ACTOR)
        if stored is not None:
            may_lose = typed.text("may_lose") == "yes"
            warnings = await editor.edit(name, values, may_lose=may_lose, looked_at=stored)
        else:
            paused = {"paused": True} if typed.text("paused") else {}
            warnings = await editor.create(name, {**values, **paused})
    if not warnings:
        return Moved(asked.link("consumers", name))
    shown = {"name": name, "warnings": warnings, "is_new": stored is None}
    return Shown("consumer_saved.html", f"Consumer {name}", shown, is_live=False)


async def _tried(asked: Asked, typed: Typed, name: str) -> Preview:
    async with asked.call.source() as source, asked.call.state() as state:
        editor = editor_of(asked.call, source, state, ACTOR)
        definition = await editor.resolved(name or _UNNAMED, values_of(typed))
        try:
            return await preview(source, state, await find_database(source, state), definition)
        except ConfigurationError as error:
            raise ConfigurationError(f"{name or _UNNAMED} filter: {error}") from None


async def _form(
    asked: Asked,
    typed: Typed,
    stored: Stored | None = None,
    *,
    tried: Preview | None = None,
    status: int = 200,
    loses: bool = False,
) -> Shown:
    chosen = [*typed.listed("tables"), *filter(None, [typed.text("other_table")])]
    async with asked.call.source() as source:
        listed = [str(table) for table in await known_tables(source)]
        columns = await read_followed(source, _readable(chosen))
    endpoints = await list_endpoints(asked.call)
    values = {
        "form": typed,
        "stored": stored,
        "chosen": chosen,
        "tables": [*listed, *(table for table in chosen if table not in listed)],
        "is_cut": len(listed) == MOST_TABLES,
        "columns": (common := _common([*columns.values()])),
        "sort_options": [(one.name, f"{one.name} ({one.type_name})") for one in common],
        "endpoints": [(one.name, f"{one.name}: {one.url}") for one in endpoints.data],
        "tasks": [(name, name) for name in sorted(task.name for task in asked.call.tasks)],
        "actions": ACTIONS,
        "operators": OPERATORS,
        "tried": tried,
        "shown": [] if tried is None else [*map(_shown, tried.tried[:SHOWN_MESSAGES])],
        "loses": loses,
    }
    title = "New consumer" if stored is None else f"Edit consumer {stored.name}"
    return Shown("consumer_form.html", title, values, status, is_live=False)


def _shown(tried: Tried) -> tuple[Tried, object]:
    """Return a message that was tried with its row, to be looked at."""
    record = tried.entry.record
    return tried, None if record is None else show_object(record)


async def _deletion(asked: Asked, stored: Stored, typed: Typed, status: int = 200) -> Shown:
    async with asked.call.state() as state:
        cursor = await state.execute(
            "SELECT count(*) FROM (SELECT FROM triggerkit.parked WHERE consumer_id = %s "
            "LIMIT 10000) p",
            [stored.id],
        )
        [parked] = await cursor.fetchone() or (0,)
    values = {"form": typed, "name": stored.name, "parked": parked}
    return Shown("consumer_delete.html", f"Delete {stored.name}", values, status, is_live=False)


async def _own(asked: Asked) -> Stored:
    """Return the consumer of the path, if it is one that these pages change."""
    async with asked.call.state() as state:
        stored = await Consumers(state, ACTOR).find(asked.path("name"))
    only_api(stored)
    return stored


def _readable(tables: Sequence[str]) -> list[TableName]:
    """Return the tables whose names can be read; the others are refused once the form is taken."""
    found = []
    for table in tables:
        try:
            found.append(TableName.parse(table))
        except ConfigurationError:
            continue
    return found


def _common(columns: Sequence[Mapping[str, FollowedColumn]]) -> list[Any]:
    """Return the columns that all tables have, by name and type."""
    first, *others = columns or [{}]
    return [one for name, one in first.items() if all(name in other for other in others)]


ROUTES = (
    Route("/new/consumer", show_new, make),
    Route("/consumers/{name}/edit", show_edit, edit),
    Route("/consumers/{name}/delete", show_delete, delete),
)

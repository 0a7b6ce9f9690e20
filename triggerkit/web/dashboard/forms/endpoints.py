"""Make, change and delete endpoints, by what commands and the API do.

A secret that was typed is not sent back to the page: after a mistake it is typed again.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import SecretStr

from triggerkit.consumers.endpoints.info import EndpointInfo
from triggerkit.consumers.endpoints.model import Endpoint
from triggerkit.consumers.endpoints.signing import OF_KNOWN, OF_NEW, signed
from triggerkit.consumers.endpoints.store import only_api
from triggerkit.errors import InvalidEndpoint, TriggerkitError
from triggerkit.web.api.captured.endpoints import EditEndpoint, edited, show_endpoint, store_of
from triggerkit.web.api.problems import status_of
from triggerkit.web.dashboard.forms.seen import changed_since, outdated, shown_with
from triggerkit.web.dashboard.forms.typed import Typed
from triggerkit.web.dashboard.page import ACTOR, Answer, Asked, Moved, Route, Shown

#: All that has a place in the form where a problem is shown.
FIELDS = frozenset({"name", "url", "headers", "signing_secret"})

#: The choice of a secret that is typed.
OWN = "own"


async def show_new(asked: Asked) -> Answer:
    """Show the form of a new endpoint."""
    return _form(asked, Typed({"url": asked.query.get("url", ""), "signing": "none"}))


async def make(asked: Asked) -> Answer:
    """Make an endpoint; a signing secret that is generated is shown this once."""
    typed = Typed(asked.form)
    if typed.text("do") != "save":
        return _form(asked, _without_secrets(typed))
    name, word = typed.text("name"), typed.text("signing")
    try:
        secret = _own_secret(typed) if word == OWN else None
        if word in OF_NEW:
            secret = signed(word, None)
        local = bool(typed.text("local"))
        endpoint = Endpoint(0, name, typed.text("url"), _headers(typed), secret, local=local)
        async with asked.call.state() as state:
            await store_of(asked.call, state, ACTOR).create(endpoint)
    except TriggerkitError as error:
        return _form(asked, _refused(typed, error), status=status_of(error))
    return _saved(asked, name, secret if word in OF_NEW else None, is_new=True)


async def show_edit(asked: Asked) -> Answer:
    """Show the form of an endpoint that there is, unless it is declared elsewhere."""
    endpoint = await _own(asked)
    return _form(asked, shown_with(Typed(_fields(endpoint)), _fields_of(endpoint)), endpoint)


async def edit(asked: Asked) -> Answer:
    """Change an endpoint: a header is kept where nothing was typed for it."""
    endpoint = await _own(asked)
    typed = Typed(asked.form)
    if typed.text("do") != "save":
        return _form(asked, _without_secrets(typed), endpoint)
    now = _fields_of(endpoint)
    if changes := changed_since(typed, now):
        return _form(asked, outdated(_without_secrets(typed), now, changes), endpoint, 409)
    word = typed.text("signing")

    def change(before: Endpoint) -> Endpoint:
        after = edited(before, _edit(typed))
        if word in OF_KNOWN:
            return replace(after, signing_secret=signed(word, before))
        return replace(after, signing_secret=_own_secret(typed)) if word == OWN else after

    try:
        async with asked.call.state() as state:
            store = store_of(asked.call, state, ACTOR)
            after = await store.edit(endpoint.name, change, looked_at=endpoint)
    except TriggerkitError as error:
        return _form(asked, _refused(typed, error), endpoint, status_of(error))
    is_made = word in ("generate", "rotate")
    secret = after.signing_secrets[0] if is_made else None
    return _saved(asked, endpoint.name, secret, is_new=False)


def _fields(endpoint: EndpointInfo) -> dict[str, str]:
    fields = {"url": endpoint.url, "signing": "keep"}
    return {**fields, "local": "yes"} if endpoint.local else fields


def _edit(typed: Typed) -> EditEndpoint:
    local = bool(typed.text("local"))
    return EditEndpoint(url=typed.text("url"), headers=_changes(typed), local=local)


async def show_delete(asked: Asked) -> Answer:
    """Ask for the name of an endpoint that is to be deleted, or say who uses it."""
    return _deletion(await _own(asked), Typed({}))


async def delete(asked: Asked) -> Answer:
    """Delete an endpoint whose name was typed once more, and that no consumer uses."""
    endpoint = await _own(asked)
    typed = Typed(asked.form)
    if typed.text("name") != endpoint.name:
        wrong = {"name": f"this is not its name: type {endpoint.name} to delete it"}
        return _deletion(endpoint, replace(typed, problems=wrong), 422)
    async with asked.call.state() as state:
        await store_of(asked.call, state, ACTOR).delete(endpoint.name)
    return Moved(asked.link("endpoints"))


def _saved(asked: Asked, name: str, secret: str | None, *, is_new: bool) -> Answer:
    if secret is None:
        return Moved(asked.link("endpoints", name))
    values = {"name": name, "secret": secret, "is_new": is_new}
    return Shown("endpoint_saved.html", f"Endpoint {name}", values, is_live=False)


def _form(
    asked: Asked, typed: Typed, endpoint: EndpointInfo | None = None, status: int = 200
) -> Shown:
    title = "New endpoint" if endpoint is None else f"Edit endpoint {endpoint.name}"
    values = {"form": typed, "endpoint": endpoint, "own_url": asked.call.settings.public_url}
    return Shown("endpoint_form.html", title, values, status, is_live=False)


def _deletion(endpoint: EndpointInfo, typed: Typed, status: int = 200) -> Shown:
    values = {"form": typed, "endpoint": endpoint}
    return Shown("endpoint_delete.html", f"Delete {endpoint.name}", values, status, is_live=False)


async def _own(asked: Asked) -> EndpointInfo:
    """Return the endpoint of the path, if it is one that these pages change."""
    endpoint = await show_endpoint(asked.call, asked.path("name"))
    only_api(endpoint.name, endpoint.managed_by)
    return endpoint


def _fields_of(endpoint: EndpointInfo) -> dict[str, str]:
    """Return what a form changes; of secrets, the fingerprints that pages show."""
    headers = {f"headers.{name}": f"{name} {mark}" for name, mark in endpoint.headers.items()}
    local = {"local": "yes"} if endpoint.local else {}
    return {"url": endpoint.url, **local, **headers, "signing": " ".join(endpoint.signing)}


def _headers(typed: Typed) -> dict[str, str]:
    """Return the headers that were typed; rows without a name and a value are none."""
    found: dict[str, str] = {}
    for number in typed.numbers("headers"):
        name, value = typed.text(f"headers.{number}.name"), typed.text(f"headers.{number}.value")
        if name or value:
            if name in found:
                raise InvalidEndpoint(f"the header {name} is given twice", "headers")
            found[name] = value
    return found


def _changes(typed: Typed) -> dict[str, SecretStr | None]:
    """Return what becomes of headers: those that are removed, given another value, or added."""
    changes: dict[str, SecretStr | None] = {}
    for number in typed.numbers("known"):
        name, value = typed.exact(f"known.{number}.name"), typed.text(f"known.{number}.value")
        if typed.text(f"known.{number}.remove"):
            changes[name] = None
        elif value:
            changes[name] = SecretStr(value)
    return changes | {name: SecretStr(value) for name, value in _headers(typed).items()}


def _own_secret(typed: Typed) -> str:
    secret = typed.text("signing_secret")
    if not secret:
        raise InvalidEndpoint("type the secret, or choose another way to sign", "signing_secret")
    return secret


def _refused(typed: Typed, error: TriggerkitError) -> Typed:
    return _without_secrets(typed).refused(error, typed.text("name"), FIELDS)


def _without_secrets(typed: Typed) -> Typed:
    """Return the form without what is never shown again."""
    secret = {"signing_secret", "csrf"}
    fields = {
        name: text
        for name, text in typed.fields.items()
        if name not in secret and not name.endswith(".value")
    }
    return Typed(fields)


ROUTES = (
    Route("/new/endpoint", show_new, make),
    Route("/endpoints/{name}/edit", show_edit, edit),
    Route("/endpoints/{name}/delete", show_delete, delete),
)

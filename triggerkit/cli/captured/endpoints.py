"""Commands about endpoints: list, show, create, edit, delete, enable, test, reencrypt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any, TypeVar

import orjson
import psycopg
import typer
from rich.table import Table

from triggerkit.cli.actor import actor
from triggerkit.cli.captured.secret_input import headers_given, signing_given
from triggerkit.cli.options import Json
from triggerkit.consumers.endpoints.info import EndpointInfo
from triggerkit.consumers.endpoints.model import Endpoint
from triggerkit.consumers.endpoints.store import EndpointStore
from triggerkit.consumers.tunnels.standing import with_tunnels
from triggerkit.delivery.credentials import credentials_of
from triggerkit.delivery.http.network import Network, check_url, reachable
from triggerkit.delivery.probe import Report, probe
from triggerkit.delivery.tunnel.probe import probe_local
from triggerkit.encryption import Keyring
from triggerkit.errors import InvalidEndpoint
from triggerkit.settings import Settings
from triggerkit.state.connect import connect
from triggerkit.terminal.console import TerminalConsole, counted

T = TypeVar("T")

console = TerminalConsole(highlight=False, soft_wrap=True)

Name = Annotated[str, typer.Argument(help="The endpoint's name.")]
Local = Annotated[
    bool | None,
    typer.Option(
        "--local/--no-local",
        help="Whether it is on the machine of whoever runs triggerkit tunnel.",
    ),
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        help="'Name: value'; repeatable. @file and env:NAME keep a secret off the command line: "
        "'Authorization: Bearer env:TOKEN'.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    group = typer.Typer(
        help="Create, inspect and test the endpoints that messages are pushed to.",
        no_args_is_help=True,
    )
    group.command("list")(list_command)
    for command in (show, create, edit, delete, enable, reencrypt):
        group.command()(command)
    group.command("test")(send_test)
    app.add_typer(group, name="endpoints")


def list_command(json: Json = False) -> None:
    """List endpoints, with names and fingerprints of their secrets."""
    found = _run_in_state(_listed)
    if json:
        _print_json(found)
        return
    table = Table("endpoint", "url", "headers", "signed", "consumers", "state", box=None)
    for e in found:
        state = f"gone since {e.disabled_at:%Y-%m-%d %H:%M} UTC" if e.disabled_at else "active"
        if e.local and not e.disabled_at:
            state = _standing(e)
        signed = "yes" if e.signing else ""
        headers = ", ".join(e.headers) if e.problem is None else "cannot be decrypted"
        table.add_row(e.name, e.url, headers, signed, ", ".join(e.consumers), state)
    console.print(table)


def show(name: Name, json: Json = False) -> None:
    """Show one endpoint."""
    [found] = _run_in_state(lambda state, store: _shown(state, store, name))
    if json:
        _print_json(found)
        return
    _print_info(found)


def create(
    name: Name,
    url: Annotated[str, typer.Argument(help="https://…, or of a local one its path.")],
    header: Headers = None,
    local: Local = None,
    signing_secret: Annotated[
        str | None,
        typer.Option(help="Sign each push: generate (printed once), @file or env:NAME."),
    ] = None,
) -> None:
    """Create an endpoint."""
    secret = None if signing_secret is None else signing_given(signing_secret, None)
    endpoint = Endpoint(0, name, url, headers_given(header), secret, local=bool(local))
    _run(lambda store: store.create(endpoint))
    print(f"created endpoint {name}")
    if signing_secret == "generate":  # noqa: S105 - a word, not a secret
        _print_secret(secret)


def edit(
    name: Name,
    url: Annotated[str | None, typer.Option(help="New URL.")] = None,
    header: Headers = None,
    local: Local = None,
    remove_header: Annotated[
        list[str] | None, typer.Option(help="Header to remove; repeatable.")
    ] = None,
    signing_secret: Annotated[
        str | None,
        typer.Option(
            help="generate, @file or env:NAME replace it; rotate signs with a new one and the one "
            "before; retire drops the one before; none signs no more."
        ),
    ] = None,
) -> None:
    """Change what is given of an endpoint and keep the rest."""
    given, removed = headers_given(header), {n.lower() for n in remove_header or []}

    def change(before: Endpoint) -> Endpoint:
        unknown = removed - {n.lower() for n in before.headers}
        if unknown:
            raise InvalidEndpoint(f"endpoint {name} has no header {min(unknown)}")
        gone = removed | {n.lower() for n in given}
        kept = {n: v for n, v in before.headers.items() if n.lower() not in gone}
        secret = before.signing_secret
        if signing_secret is not None:
            secret = signing_given(signing_secret, before)
        return replace(
            before,
            url=url or before.url,
            headers={**kept, **given},
            signing_secret=secret,
            local=before.local if local is None else local,
        )

    after = _run(lambda store: store.edit(name, change))
    print(f"changed endpoint {name}")
    if signing_secret in ("generate", "rotate"):
        _print_secret(after.signing_secrets[0])


def delete(name: Name) -> None:
    """Delete an endpoint that no consumer uses."""
    _run(lambda store: store.delete(name))
    print(f"deleted endpoint {name}")


def enable(name: Name) -> None:
    """Resume pushes to an endpoint that answered 410; its consumers continue."""
    consumers = _run(lambda store: store.enable(name))
    print(f"enabled endpoint {name}; active again: {', '.join(consumers) or 'no consumer'}")


def reencrypt() -> None:
    """Encrypt stored secrets with the first key of TRIGGERKIT_ENCRYPTION_KEY."""
    for name in _run(lambda store: store.reencrypt()) or ["nothing"]:
        print(f"reencrypted {name}")


def send_test(name: Name, json: Json = False) -> None:
    """Send an endpoint a signed test message and report each step."""
    settings = Settings.load()

    async def sent(state: psycopg.AsyncConnection, store: EndpointStore) -> Report:
        sealed = await store.load(name)
        if sealed.local:
            return await probe_local(state, sealed)
        credentials = credentials_of(sealed, Keyring(settings.encryption_keys), settings)
        return await probe(name, sealed.url, credentials, _allowed(settings))

    report = _run_in_state(sent)
    if json:
        _print_json(report)
    else:
        _print_report(report)
    raise typer.Exit(0 if report.ok else 1)


async def _listed(state: psycopg.AsyncConnection, store: EndpointStore) -> list[EndpointInfo]:
    return await with_tunnels(state, await store.list_all())


async def _shown(
    state: psycopg.AsyncConnection, store: EndpointStore, name: str
) -> list[EndpointInfo]:
    return await with_tunnels(state, [await store.show(name)])


def _run(use: Callable[[EndpointStore], Awaitable[T]]) -> T:
    return _run_in_state(lambda _, store: use(store))


def _run_in_state(use: Callable[[psycopg.AsyncConnection, EndpointStore], Awaitable[T]]) -> T:
    async def connected() -> T:
        settings = Settings.load()
        allowed = _allowed(settings)
        async with await connect(settings.state_dsn, "triggerkit endpoints") as state:
            store = EndpointStore(
                state,
                Keyring(settings.encryption_keys),
                lambda url: check_url(url, allowed),
                actor(),
            )
            return await use(state, store)

    return asyncio.run(connected())


def _allowed(settings: Settings) -> tuple[Network, ...]:
    return reachable(settings.triggerkit_allow_networks, settings.public_url)


def _print_secret(secret: str | None) -> None:
    print(f"signing secret, shown only once: {secret}")


def _print_json(value: Any) -> None:
    print(orjson.dumps(value).decode())


def _print_info(found: EndpointInfo) -> None:
    lines = {
        "name": found.name,
        "url": found.url,
        "local": _standing(found) if found.local else None,
        "managed by": found.managed_by,
        "gone since": found.disabled_at and f"{found.disabled_at:%Y-%m-%d %H:%M:%S} UTC",
        "consumers": ", ".join(found.consumers),
        "headers": ", ".join(f"{name} ({mark})" for name, mark in found.headers.items()),
        "signed with": ", ".join(found.signing),
        "problem": found.problem,
    }
    for name, value in lines.items():
        if value:
            console.print(f"{name:<12} {value}", markup=False)


def _standing(found: EndpointInfo) -> str:
    """Return who has a tunnel to a local endpoint, and how many messages wait for one."""
    holders = ", ".join(f"{tunnel.user} (port {tunnel.port})" for tunnel in found.tunnels)
    waiting = found.waiting or 0
    wait = "waits" if waiting == 1 else "wait"
    return f"tunnel: {holders or 'none'}; {counted(waiting, 'message')} {wait}"


def _print_report(report: Report) -> None:
    for step in report.steps:
        mark = "[green]✓[/]" if step.ok else "[red]✗[/]"
        console.print(f"{mark} {step.name} ({step.ms:g} ms): ", end="")
        console.print(step.detail, markup=False)
    if report.answer:
        console.print(f"answer: {report.answer}", markup=False)
    if report.meaning is not None:
        console.print(report.meaning, markup=False)

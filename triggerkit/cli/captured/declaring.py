"""Write a consumer that was made by hand as the tables of `triggerkit.toml` that declare it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from triggerkit.configuration.toml_text import toml_table
from triggerkit.consumers.declare.plan import Stored

_ENDPOINT = """
SELECT name, url, local, managed_by = 'api', headers IS NOT NULL OR signing_secret IS NOT NULL
FROM triggerkit.endpoints WHERE name = %s
"""


async def declaration_of(state: psycopg.AsyncConnection, stored: Stored) -> str:
    """Return the tables of a consumer and of its endpoint, if that was made by hand, too. Secrets
    are left out: a comment says so."""
    cursor = await state.execute(_ENDPOINT, [stored.endpoint])
    endpoint = await cursor.fetchone()
    lines = [] if endpoint is None else list(_endpoint(*endpoint))
    definition = stored.definition
    values = definition.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
    written = {
        "kind": definition.kind,
        **{key: value for key, value in values.items() if value is not None},
    }
    return "\n".join([*lines, *toml_table("consumers", stored.name, written)])


def _endpoint(
    name: str, url: str, is_local: bool, is_by_hand: bool, has_secrets: bool
) -> Iterator[str]:
    if not is_by_hand:
        return
    yield from toml_table("endpoints", name, {"url": url, **({"local": True} if is_local else {})})
    if has_secrets:
        yield "# Its headers and signing secret are not shown; write those that it has there:"
        yield '# headers = {Authorization = "Bearer ${TOKEN}"}'
    yield ""

"""Endpoints of `sequin.yaml`: their address and headers; secrets stay out of the file."""

from __future__ import annotations

import re
from itertools import chain, count
from typing import Any

from triggerkit.compat.sequin.configuration.report import Section, has_variable


def read_endpoint(section: Section) -> tuple[str, dict[str, Any]] | None:
    """Return the name and the table of an endpoint; None where it has no counterpart."""
    name = section.text("name")
    if name is None:
        section.note("it has no name; it is left out")
        return None
    if section.flag("webhook.site"):
        section.note("webhook.site has no counterpart: give an endpoint of your own")
        return None
    url, is_local = _address(section)
    headers = _headers(section, name)
    section.end()
    if url is None:
        section.note("it has no url; it is left out")
        return None
    table: dict[str, Any] = {"url": url}
    if is_local:
        table["local"] = True
    if headers:
        table["headers"] = headers
    return name, table


def with_path(url: str, path: str) -> str:
    """Return an endpoint's address with a sink's path behind it, before a query."""
    if not path.strip("/"):
        return url
    address, mark, query = url.partition("?")
    if "}" in query:
        address, mark, query = url, "", ""
    # The end may be that of a variable's default.
    base = re.sub(r"/*(\}?)\Z", r"\1", address, count=1)
    return f"{base}/{path.lstrip('/')}{mark}{query}"


def _address(section: Section) -> tuple[str | None, bool]:
    """Return the address, and whether it is the path of a local endpoint."""
    is_local, path = section.flag("local"), section.text("path", "") or ""
    url = section.raw_text("url")
    for key in ("host", "port", "scheme", "use_local_tunnel"):
        if section.has(key):
            section.note(f"{key} is not read; give a url")
            section.any(key)
    if url is None and is_local:
        section.note(
            "it is local: where its app runs, triggerkit tunnel --ports=PORT:NAME has its messages"
        )
        return f"/{path.lstrip('/')}", True
    return (None if url is None else with_path(url, path)), False


def _headers(section: Section, name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, is_secret in (("headers", False), ("encrypted_headers", True)):
        for header, value in _pairs(section, key):
            if is_secret and not has_variable(value):
                variable = _free_variable(section, variable_of(name, header))
                section.into.settings[variable] = None
                section.note(
                    f"the value of the encrypted header {header} is left out of the file: put it "
                    f"into {variable}"
                )
                found[header] = f"${{{variable}}}"
            else:
                found[header] = value
    return found


def _pairs(section: Section, key: str) -> list[tuple[str, str]]:
    if isinstance(given := section.any(key), dict):
        listed: Any = [{"key": name, "value": value} for name, value in given.items()]
    else:
        listed = given or []
    found = []
    for one in listed if isinstance(listed, list) else [None]:
        name, value = (one.get("key"), one.get("value")) if isinstance(one, dict) else (None, None)
        if isinstance(name, str) and isinstance(value, str | int | float):
            found.append((name, str(value)))
        else:
            section.note(f"{key} must be a list of key and value; one is left out")
    return found


def variable_of(*parts: str) -> str:
    """Return the name of a variable for a secret of these."""
    name = re.sub(r"[^A-Z0-9]+", "_", "_".join(parts).upper()).strip("_")
    return f"ENDPOINT_{name}" if name[:1].isdigit() else name


def _free_variable(section: Section, name: str) -> str:
    """Return a name that no other secret has: those of `a-b` and of `a_b` are alike."""
    names = chain([name], (f"{name}_{number}" for number in count(2)))
    return next(one for one in names if one not in section.into.settings)

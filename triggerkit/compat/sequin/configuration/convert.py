"""Turn a `sequin.yaml` into endpoints and consumers, and notes of what has no counterpart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from triggerkit.compat.sequin.configuration.endpoints import read_endpoint
from triggerkit.compat.sequin.configuration.report import Imported, Section, has_variable
from triggerkit.compat.sequin.configuration.sinks import Known, read_sink
from triggerkit.configuration.table_name import TableName
from triggerkit.consumers.declare.declaration import read_file
from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.consumers.endpoints.model import Endpoint, placed, validate
from triggerkit.errors import ConfigurationError

#: Sections that nothing here corresponds to.
_OTHERS: Final = {
    "account": "there are no accounts",
    "users": "the dashboard is opened by TRIGGERKIT_SECRET_KEY",
    "api_tokens": "the API is opened by TRIGGERKIT_SECRET_KEY",
    "change_retentions": "follow the table by a task that writes the changes where you want them",
    "wal_pipelines": "follow the table by a task that writes the changes where you want them",
}

#: Where consumers were before there were sinks, and of those that say no destination their one.
_SINKS: Final = {
    "sinks": None,
    "sink_consumers": None,
    "webhook_subscriptions": "webhook",
    "http_pull_consumers": "sequin_stream",
}


def convert(document: Mapping[str, Any], environment: Mapping[str, str]) -> Imported:
    """Return what the file says, as far as there is a counterpart."""
    into = Imported()
    top = Section(document, "", into, environment)
    top.without(_OTHERS)
    databases = _databases(top)
    for endpoint in top.sections("http_endpoints"):
        _endpoint(endpoint)
    known = Known(dict(into.endpoints), _sequences(top), databases)
    for key, destination in _SINKS.items():
        for sink in top.sections(key):
            read_sink(sink, known, destination)
    for key in ("functions", "transforms"):
        for function in top.sections(key):
            _function(function)
    top.end()
    _check(into)
    if any("headers" in values for values in into.endpoints.values()):
        # They are stored encrypted.
        into.settings["TRIGGERKIT_ENCRYPTION_KEY"] = None
    return into


def _endpoint(section: Section) -> None:
    found = read_endpoint(section)
    if found is None:
        return
    name, values = found
    if name in section.into.endpoints:
        section.note("another endpoint has this name; it is left out")
        return
    problem = _problem_of(name, values)
    if problem is not None:
        section.note(f"{problem}; it is left out")
        return
    section.into.endpoints[name] = values


def _problem_of(name: str, values: dict[str, Any]) -> str | None:
    """Return why there can be no such endpoint; what its variables have is not known here."""
    try:
        variables = dict.fromkeys(re.findall(r"\$\{(\w+)", repr(values)), "/x")
        _, [given] = read_file({name: values}, {}, variables)
        endpoint = Endpoint(
            id=0, name=name, url=given.url, headers=given.headers, local=given.local
        )
        validate(endpoint)
        placed(endpoint)
    except ConfigurationError as error:
        return str(error).splitlines()[0]
    if not (given.local or has_variable(values["url"]) or re.match(r"https?://.|/", given.url)):
        return "its url begins neither with http:// or https://, nor with /"
    return None


def _sequences(top: Section) -> dict[str, tuple[str, str | None]]:
    """Return the tables of what sinks named before they named tables, and their sort columns."""
    found: dict[str, tuple[str, str | None]] = {}
    for one in top.sections("sequences"):
        name, table = one.text("name"), one.text("table_name")
        if name is not None and table is not None:
            of = TableName(one.text("table_schema", "public") or "public", table)
            found[name] = (str(of), one.text("sort_column_name"))
    return found


def _databases(top: Section) -> list[str | None]:
    """Return the names of the databases; the first one is that of the installation."""
    names: list[str | None] = []
    for database in top.sections("databases"):
        names.append(database.text("name"))
        if len(names) > 1:
            database.note("there is one database for each installation: run another for this one")
            continue
        for key, setting in (
            ("slot", "TRIGGERKIT_SLOT"),
            ("publication", "TRIGGERKIT_PUBLICATION"),
        ):
            section = database.section(key)
            name = database.text(f"{key}_name") if section is None else section.text("name")
            if name is not None:
                top.into.settings[setting] = name
        top.into.settings["DATABASE_URL"] = None
        database.note(
            "put its connection string into DATABASE_URL, with TRIGGERKIT_SLOT and "
            "TRIGGERKIT_PUBLICATION to go on with its slot once Sequin has left it"
        )
    return names


def _function(section: Section) -> None:
    inner = section.section("function") or section.section("transform") or section
    kind = inner.text("type", "function")
    language = "SQL" if kind == "enrichment" else "Elixir"
    if kind == "path":
        language = "a path"
    section.note(
        f"the {kind} function is {language}, which is not run here: write it in Python, and name "
        "it in the consumer as module:function"
    )


def _check(into: Imported) -> None:
    """Leave out what no consumer may be, and say why; and endpoints that were only for those."""
    for name, values in list(into.consumers.items()):
        try:
            ConsumerDefinition.parse({"name": name, **values}, name)
        except ConfigurationError as error:
            del into.consumers[name]
            for line in str(error).splitlines():
                into.note(f"sinks.{name}", f"{line}; it is left out")
    used = {values.get("endpoint") for values in into.consumers.values()}
    for name in into.of_sinks - used:
        del into.endpoints[name]

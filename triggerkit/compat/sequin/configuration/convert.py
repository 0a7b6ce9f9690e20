"""Turn a `sequin.yaml` into endpoints and consumers, and notes of what has no counterpart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from triggerkit.compat.sequin.configuration.endpoints import read_endpoint
from triggerkit.compat.sequin.configuration.report import Imported, Section
from triggerkit.compat.sequin.configuration.sinks import read_sink
from triggerkit.consumers.definition import ConsumerDefinition
from triggerkit.errors import ConfigurationError

#: Sections that nothing here corresponds to.
_OTHERS: Final = {
    "account": "there are no accounts",
    "users": "the dashboard is opened by TRIGGERKIT_SECRET_KEY",
    "api_tokens": "the API is opened by TRIGGERKIT_SECRET_KEY",
    "change_retentions": "follow the table by a task that writes the changes where you want them",
    "wal_pipelines": "follow the table by a task that writes the changes where you want them",
}

#: Where consumers were before there were sinks.
_SINKS: Final = ("sinks", "sink_consumers", "webhook_subscriptions", "http_pull_consumers")


def convert(document: Mapping[str, Any], environment: Mapping[str, str]) -> Imported:
    """Return what the file says, as far as there is a counterpart."""
    into = Imported()
    top = Section(document, "", into, environment)
    top.without(_OTHERS)
    for endpoint in top.sections("http_endpoints"):
        found = read_endpoint(endpoint)
        if found is not None:
            into.endpoints[found[0]] = found[1]
    _databases(top)
    known = dict(into.endpoints)
    for key in _SINKS:
        for sink in top.sections(key):
            read_sink(sink, known)
    for function in top.sections("functions"):
        _function(function)
    top.end()
    _check(into)
    return into


def _databases(top: Section) -> None:
    found = list(top.sections("databases"))
    for number, database in enumerate(found):
        if number:
            database.note("there is one database for each installation: run another for this one")
            continue
        for key, setting in (
            ("slot", "TRIGGERKIT_SLOT"),
            ("publication", "TRIGGERKIT_PUBLICATION"),
        ):
            section = database.section(key)
            name = None if section is None else section.text("name")
            if name is not None:
                top.into.settings[setting] = name
        top.into.settings["DATABASE_URL"] = None
        database.note(
            "put its connection string into DATABASE_URL, with TRIGGERKIT_SLOT and "
            "TRIGGERKIT_PUBLICATION to go on with its slot once Sequin has left it"
        )


def _function(section: Section) -> None:
    kind = section.text("type", "function")
    language = "SQL" if kind == "enrichment" else "Elixir"
    if kind == "path":
        language = "a path"
    section.note(
        f"the {kind} function is {language}, which is not run here: write it in Python, and name "
        "it in the consumer as module:function"
    )


def _check(into: Imported) -> None:
    """Leave out what no consumer may be, and say why."""
    for name, values in list(into.consumers.items()):
        try:
            ConsumerDefinition.parse({"name": name, **values}, name)
        except ConfigurationError as error:
            del into.consumers[name]
            for line in str(error).splitlines():
                into.note(f"sinks.{name}", f"{line}; it is left out")

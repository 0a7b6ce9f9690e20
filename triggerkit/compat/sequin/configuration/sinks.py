"""Sinks of `sequin.yaml` as consumers: what they follow, how they deliver, and what is missing."""

from __future__ import annotations

from itertools import chain, count
from typing import Any, Final, NamedTuple

from triggerkit.compat.sequin.configuration.endpoints import with_path
from triggerkit.compat.sequin.configuration.report import Section
from triggerkit.configuration.table_name import TableName
from triggerkit.errors import ConfigurationError

#: Keys of a sink, or of its destination, that nothing here corresponds to.
_OF_SINK: Final = {
    "transform": 'write it in Python, transform = "module:function"',
    "filter": 'write it in Python, filter = "module:function"',
    "routing": "a consumer has one endpoint; make one for each place",
    "enrichment": "read what is missing in the task or the transform",
    "load_shedding_policy": "messages wait in the log, and nothing is shed",
    "max_ack_pending": "concurrency bounds the pushes under way",
    "max_waiting": "any number of callers may ask",
    "max_storage_mb": "the log has its own bound, TRIGGERKIT_LOG_MAX",
    "timestamp_format": "timestamps are ISO 8601 with microseconds",
}

_OPERATORS: Final = {
    "=": "==", "==": "==", "!=": "!=", ">": ">", "<": "<", ">=": ">=", "<=": "<=",
    "IN": "in", "in": "in", "NOT IN": "not_in", "not in": "not_in",
    "IS NULL": "is_null", "is null": "is_null", "IS NOT NULL": "not_null",
    "is not null": "not_null",
}  # fmt: skip

#: Destinations, and the way there is to do the same.
_OTHER_SINKS: Final = {
    "kafka": "name the tables in [events], and set KAFKA_BOOTSTRAP_SERVERS",
}


class Known(NamedTuple):
    """What sinks name: endpoints, the tables of sequences, and databases, the first one ours."""

    endpoints: dict[str, dict[str, Any]]
    sequences: dict[str, tuple[str, str | None]]
    databases: list[str | None]


def read_sink(section: Section, known: Known, destination: str | None) -> None:
    """Take a sink into what is imported, or note why it has no counterpart.

    One that says no destination has the kind `destination`, if there is one.
    """
    name = section.text("name")
    if name is None:
        section.note("it has no name; it is left out")
        return
    if name in section.into.consumers:
        section.note("another sink has this name; it is left out")
        return
    table: dict[str, Any] = {"kind": "changes"}
    tables, group_by = _tables(section, known, table)
    if group_by:
        table["group_by"] = group_by
    is_ours = _is_ours(section, known)
    _options(section, table)
    section.without(_OF_SINK)
    fits = _destination(section, name, table, known.endpoints, destination)
    section.end()
    if not (fits and is_ours):
        return
    if not tables:
        section.note(
            "it follows every table of the publication, or of a schema: name them in tables; it "
            "is left out"
        )
        return
    section.into.consumers[name] = {"kind": table.pop("kind"), "tables": tables, **table}


def _is_ours(section: Section, known: Known) -> bool:
    database = section.text("database")
    if len(known.databases) < 2 or database in (None, known.databases[0]):
        return True
    section.note("it is of another database: run another installation for it; it is left out")
    return False


def _tables(section: Section, known: Known, options: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the tables that are named, and the columns that all of them are grouped by."""
    found = [one for one in [section.text("table")] if one is not None]
    found += _of_sequence(section, known, options)
    schema = section.text("schema")
    source = section.section("source")
    groups: set[tuple[str, ...]] = set()
    if source is not None:
        found += source.texts("include_tables")
        for key in ("include_schemas", "exclude_schemas", "exclude_tables"):
            if source.texts(key):
                source.note(f"{key} has no counterpart: a consumer names its tables")
        source.end()
    if schema is not None and not found:
        section.note("schema has no counterpart: a consumer names its tables")
    for one in section.sections("tables"):
        name = one.text("name")
        if name is not None and name not in found:
            found.append(name)
        groups.add(tuple(one.texts("group_column_names")))
        one.end()
    if len(groups) > 1:
        section.note("its tables group by different columns: make a consumer of each")
    columns = list(groups.pop()) if len(groups) == 1 else []
    return [text for one in found if (text := _table(section, one)) is not None], columns


def _of_sequence(section: Section, known: Known, options: dict[str, Any]) -> list[str]:
    sequence = section.text("sequence")
    if sequence is None:
        return []
    if sequence not in known.sequences:
        section.note(f"there is no sequence {sequence!r} here")
        return []
    table, column = known.sequences[sequence]
    if column is not None:
        options["sort_by"] = column
    return [table]


def _table(section: Section, name: str) -> str | None:
    try:
        return str(TableName.parse(name if "." in name else f"public.{name}"))
    except ConfigurationError:
        section.note(f"{name!r} is no table's name; it is left out")
        return None


def _options(section: Section, table: dict[str, Any]) -> None:
    if isinstance(annotations := section.any("annotations"), dict):
        table["annotations"] = annotations
    if (actions := section.texts("actions")) and set(actions) != {"insert", "update", "delete"}:
        # Rows that a backfill reads are always sent.
        table["actions"] = [*actions, "read"]
    if section.text("status", "active") != "active":
        table["paused"] = True
    if section.flag("message_grouping") is False:
        section.note("message_grouping: messages of a row are always in order")
    if section.has("initial_backfill") or section.has("backfill"):
        backfill = section.any("initial_backfill") or section.any("backfill")
        section.any("backfill")
        table["start"] = "beginning" if backfill else "end"
    if (start := section.section("consumer_start")) is not None:
        position = start.text("position")
        if position in ("beginning", "end"):
            table["start"] = position
        else:
            start.note("set start in the consumer, and sort_by where it is a value")
    if (column := section.text("sort_column_name")) is not None:
        table["sort_by"] = column
    _numbers(section, table)
    filters = [
        found for one in section.sections("filters", "column_name") if (found := _filter(one))
    ]
    if filters:
        table["filters"] = filters


def _numbers(section: Section, table: dict[str, Any]) -> None:
    for key, name, scale in (
        ("batch_size", "batch_size", 1),
        ("batch_timeout_ms", "batch_timeout_s", 1000),
        ("timeout_ms", "timeout_s", 1000),
        ("ack_wait_ms", "timeout_s", 1000),
    ):
        if (value := section.number(key)) is not None:
            table[name] = int(value) if scale == 1 else value / scale
    if (retries := section.number("max_retry_count")) is not None:
        # Sequin drops the message then, and goes on with its group.
        table |= {"max_attempts": int(retries) + 1, "on_exhausted": "skip"}


def _filter(section: Section) -> list[Any] | None:
    column, operator = section.text("column_name"), section.text("operator")
    value = section.any("comparison_value")
    field = section.text("field_path")
    section.any("field_type")
    section.end()
    if column is None or operator not in _OPERATORS:
        section.note(f"the operator {operator!r} is not known; the filter is left out")
        return None
    if field:
        section.note('field_path has no counterpart: write filter = "module:function" in Python')
        return None
    known = _OPERATORS[operator]
    return [column, known] if known in ("is_null", "not_null") else [column, known, value]


def _destination(
    section: Section,
    name: str,
    table: dict[str, Any],
    endpoints: dict[str, dict[str, Any]],
    kind: str | None,
) -> bool:
    """Return whether the sink delivers in a way that there is here; `kind` if it does not say."""
    given = section.section("destination") or section.section("sink")
    if given is not None:
        kind = given.text("type")
    elif kind is not None:
        given = section
    else:
        section.note("it has no destination; it is left out")
        return False
    if kind in ("sequin_stream", "http_pull"):
        # What a caller has to acknowledge; a pulled consumer has no batches of its own.
        table.pop("batch_size", None)
        table.pop("batch_timeout_s", None)
        given.end()
        return True
    if kind not in ("webhook", "http_push"):
        instead = _OTHER_SINKS.get(kind or "", "write there in a task")
        section.note(f"the destination {kind!r} has no counterpart: {instead}; it is left out")
        return False
    return _webhook(given, name, table, endpoints)


def _webhook(
    given: Section, name: str, table: dict[str, Any], endpoints: dict[str, dict[str, Any]]
) -> bool:
    endpoint, path = given.text("http_endpoint"), given.text("http_endpoint_path", "") or ""
    if given.flag("batch") is False:
        table["batch_size"] = 1
    elif table.get("batch_size", 1) == 1:
        # A message by itself would be sent without `data` around it.
        table["always_data"] = True
    if (timeout := given.number("timeout_ms")) is not None:
        table["timeout_s"] = timeout / 1000
    given.end()
    if endpoint not in endpoints:
        given.note(f"there is no endpoint {endpoint!r} here; the sink is left out")
        return False
    table["endpoint"] = endpoint
    if path.strip("/"):
        # An endpoint is one address here.
        taken = given.into.endpoints
        first = name.lstrip("._-") or "endpoint"
        names = chain([first, f"{first}_path"], (f"{first}_path_{n}" for n in count(2)))
        table["endpoint"] = own = next(one for one in names if one not in taken)
        taken[own] = {**endpoints[endpoint], "url": with_path(endpoints[endpoint]["url"], path)}
        given.into.of_sinks.add(own)
    return True

"""OpenTelemetry: attempts and spans go to the project's exporter, in the trace of the request."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette

from tests.integration.run_state import RunState
from tests.integration.serving import serving
from tests.integration.worker_thread import Row, message, working
from triggerkit import Change, span, task, webhook

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"

_exporter = InMemorySpanExporter()


@pytest.fixture
def exported() -> InMemorySpanExporter:
    """What is exported; a provider can be set once in a process."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(_exporter))
        trace.set_tracer_provider(provider)
    _exporter.clear()
    return _exporter


def hexes(one: ReadableSpan) -> tuple[str, str | None]:
    """The trace and the parent of a span."""
    assert one.context is not None
    parent = None if one.parent is None else f"{one.parent.span_id:016x}"
    return f"{one.context.trace_id:032x}", parent


def test_the_trace_goes_from_the_request_through_runs_and_those_they_trigger(
    triggers: RunState, exported: InMemorySpanExporter
) -> None:
    @task
    def child() -> None: ...

    @task
    def note(change: Change[Row]) -> None:
        with span("fetch", url="http://x"), span("parse"):
            pass
        child.trigger()

    @task
    async def note_all(changes: list[Change[Row]]) -> None:
        with span("embed"):
            pass

    headers = {"traceparent": TRACEPARENT}
    with serving(
        Starlette(routes=[webhook("/note", task=note), webhook("/all", task=note_all)])
    ) as site:
        answers = [
            site.post("/note", message(1), headers),
            site.post("/all", {"data": [message(1), message(2)]}, headers),
            site.post("/note", message(2), {"traceparent": "nonsense" * 10}),
        ]
    assert [answer.status for answer in answers] == [200, 200, 200]
    stored = "SELECT traceparent FROM triggerkit.runs ORDER BY seq"
    assert triggers.rows(stored) == [TRACEPARENT, TRACEPARENT, None]
    with working(triggers, note, note_all, child):
        triggers.wait_for(lambda: triggers.statuses() == ["completed"] * 5)
    spans = exported.get_finished_spans()
    by_name = {one.name: one for one in spans if hexes(one)[0] == TRACE}
    assert by_name.keys() == {"run note", "run note_all", "run child", "fetch", "parse", "embed"}
    attempt = by_name["run note"]
    assert hexes(attempt) == (TRACE, PARENT)
    assert attempt.kind is trace.SpanKind.CONSUMER
    attributes = dict(attempt.attributes or {})
    assert attributes["triggerkit.task"] == "note"
    assert attributes["messaging.message.id"] == answers[0].json["id"]
    assert attempt.context is not None
    own = f"{attempt.context.span_id:016x}"
    assert hexes(by_name["fetch"]) == (TRACE, own)
    assert by_name["fetch"].attributes == {"url": "http://x"}
    assert hexes(by_name["run child"]) == (TRACE, own)


def test_an_attempt_that_fails_is_an_error_in_its_trace(
    triggers: RunState, exported: InMemorySpanExporter
) -> None:
    @task(retry=1)
    def doomed() -> None:
        raise ValueError("no luck")

    handle = doomed.trigger()
    with working(triggers, doomed):
        triggers.wait_for_status("failed", handle.id)
    [one] = exported.get_finished_spans()
    assert (one.status.status_code, one.status.description) == (trace.StatusCode.ERROR, "no luck")

"""OpenTelemetry, where it is installed: attempts and spans go to the project's exporter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import lru_cache
from typing import Any

from triggerkit.errors import text_of
from triggerkit.runs.run import ClaimedRun

try:
    from opentelemetry import context, trace
    from opentelemetry.trace import Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:  # pragma: no cover - the packages are an extra
    trace = None  # type: ignore[assignment]

#: Finds the provider that the project sets up, whenever it does.
_tracer = None if trace is None else trace.get_tracer("triggerkit")

#: Values that an attribute of a span can have.
_SCALARS = (str, bool, int, float)


@contextmanager
def otel_span(name: str, attributes: Mapping[str, Any]) -> Iterator[None]:
    """Yield a span of the tracer that the project has set up; nothing without OpenTelemetry."""
    if _tracer is None:
        yield
        return
    with _tracer.start_as_current_span(
        name,
        attributes=_scalars(attributes),
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except Exception as error:
            # By us: the library fails with errors that cannot be described.
            with suppress(Exception):
                span.record_exception(error)
            otel_failed(f"{type(error).__name__}: {text_of(error)}")
            raise


def otel_attempt(run: ClaimedRun) -> AbstractContextManager[object]:
    """Return what holds the span of an attempt, in the trace that the run's request came with.

    Where the project exports none, only that trace is passed on to what the attempt triggers.
    """
    if _tracer is None:
        return _NOTHING
    if not _is_set_up():
        return _NOTHING if run.traceparent is None else _Within(run.traceparent)
    facts: dict[str, Any] = {
        "messaging.operation.type": "process",
        "messaging.destination.name": run.queue,
        "messaging.message.id": run.id,
        "triggerkit.task": run.task,
        "triggerkit.attempt": run.attempt,
    }
    return _tracer.start_as_current_span(
        f"run {run.task}",
        context=_remote(run.traceparent),
        kind=trace.SpanKind.CONSUMER,
        attributes=facts,
    )


_NOTHING = nullcontext()


class _Within:
    """Makes a request's trace the current one. The library's own way, by a span that nobody gets,
    was a quarter of executing a run that does nothing."""

    __slots__ = ("_token", "_traceparent")

    def __init__(self, traceparent: str) -> None:
        self._traceparent = traceparent

    def __enter__(self) -> None:
        remote = trace.get_current_span(_remote(self._traceparent))
        self._token = context.attach(trace.set_span_in_context(remote))

    def __exit__(self, *_: object) -> None:
        context.detach(self._token)


@lru_cache(maxsize=64)
def _remote(traceparent: str | None) -> Any:
    """Return the context of a request's trace: all runs of a push have the same."""
    carrier = {} if traceparent is None else {"traceparent": traceparent}
    return TraceContextTextMapPropagator().extract(carrier)


def _is_set_up() -> bool:
    """Return whether the project has a provider by now: what goes to none need not be made."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def current_traceparent() -> str | None:
    """Return the W3C trace context of the span that is open here, None when none is."""
    if trace is None:
        return None
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def otel_failed(message: str) -> None:
    """Mark the span of the attempt that ends now as failed."""
    if trace is not None:
        trace.get_current_span().set_status(Status(StatusCode.ERROR, message[:200]))


def _scalars(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v if isinstance(v, _SCALARS) else text_of(v) for k, v in attributes.items()}

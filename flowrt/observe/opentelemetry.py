"""A job's metrics and traces for OpenTelemetry. Needs `pip install flowrt[opentelemetry]`.

Only its API is used: what collects and exports is the SDK that the program sets up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from typing import Final, TypeAlias

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import Span, SpanKind, TracerProvider

from flowrt.contract.errors import ConfigError
from flowrt.contract.logs import flow_name
from flowrt.contract.tracing import Tracer
from flowrt.observe.figures import FIGURES, Figure, Observed
from flowrt.runtime.job import Job
from flowrt.runtime.status import EpochMetrics

Attributes: TypeAlias = Mapping[str, str | int]

_UNITS: Final = {"": "1", "seconds": "s", "bytes": "By"}


def instrument(
    job: Job,
    *,
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
) -> Callable[[], None]:
    """Tell OpenTelemetry a job's metrics, and each epoch that commits as a span.

    The span "epoch" has children for each subtask ("align", "freeze", "write") and for "manifest"
    and "commit". Without providers the global ones are used. Returns what ends it, which may be
    called twice; the instruments stay and observe nothing then.
    """
    observed = _Observed(job)
    meter = metrics.get_meter("flowrt", version("flowrt"), meter_provider)
    for figure in FIGURES:
        observed.add(meter, figure)
    tracer = trace.get_tracer("flowrt", version("flowrt"), tracer_provider)
    leave = job.on_epoch(lambda epoch: _tell_epoch(tracer, job.name, epoch))

    def stop() -> None:
        observed.job = None
        leave()

    return stop


class _Observed:
    """What the instruments of one job read."""

    def __init__(self, job: Observed) -> None:
        self.job: Observed | None = job

    def add(self, meter: metrics.Meter, figure: Figure) -> None:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            job = self.job
            if job is None:
                return
            for labels, value in figure.samples(job.metrics(), job.status()):
                yield Observation(value, {"flow": job.name, **labels})

        name, unit = f"flowrt.{figure.name}", _UNITS[figure.unit]
        if figure.kind == "counter":
            meter.create_observable_counter(name, [observe], unit, figure.help)
        else:
            meter.create_observable_gauge(name, [observe], unit, figure.help)


# ------------------------------------------------------------------------------------ epochs


def _tell_epoch(tracer: trace.Tracer, flow: str, epoch: EpochMetrics) -> None:
    began, took = epoch.opened_ms, epoch.duration_ms
    attributes: Attributes = {
        "flow": flow,
        "flowrt.epoch": epoch.epoch,
        "flowrt.checkpoint_bytes": epoch.size,
    }
    # A trace of its own: it belongs to nothing that happened to be current.
    whole = tracer.start_span("epoch", Context(), attributes=attributes, start_time=_ns(began))
    inside = trace.set_span_in_context(whole, Context())

    def phase(name: str, until_ms: float, took_ms: float, who: Attributes | None = None) -> float:
        """Tell a phase by its end; return its beginning."""
        since_ms = until_ms - took_ms
        if took_ms > 0:
            about: Attributes = {"flow": flow, **(who or {})}
            start = _ns(began + since_ms)
            span = tracer.start_span(name, inside, attributes=about, start_time=start)
            span.end(_ns(began + until_ms))
        return since_ms

    for part in epoch.tasks:
        who: Attributes = {"flowrt.task": part.task, "flowrt.subtask": part.subtask}
        at = phase("write", part.acknowledged_ms, part.write_ms, who)
        at = phase("freeze", at, part.freeze_ms, who)
        phase("align", at, part.align_ms, who)
    acknowledged = max((part.acknowledged_ms for part in epoch.tasks), default=0.0)
    at = phase("commit", took, epoch.commit_ms)
    phase("manifest", at, at - acknowledged)
    whole.end(_ns(began + took))


def _ns(ms: float) -> int:
    return round(ms * 1e6)


# ------------------------------------------------------------------------------------ records


class RunTracer(Tracer):
    """Traces one run of records in `one_in`, from its source through each task to the sinks.

    Give it to the job: `start(flow, tracer=RunTracer(one_in=1_000))`. A run is what a source reads
    at once: one record of a slow stream, up to 1,024 of a fast one. Each task that gets records of
    it makes a span, which is current while the task has them: spans of libraries that its functions
    call become children. The time between two spans is that in the queue. At `map_async` a trace
    ends, for answers leave one by one.
    """

    def __init__(self, one_in: int = 1_000, tracer_provider: TracerProvider | None = None) -> None:
        if one_in < 1:
            raise ConfigError("one_in must be at least 1")
        self._tracer = trace.get_tracer("flowrt", version("flowrt"), tracer_provider)
        self._one_in = one_in
        self._left = 1

    def sample(
        self, source: str, subtask: int, records: int
    ) -> AbstractContextManager[object] | None:
        """See `Tracer.sample`: the first run, and then every so many."""
        self._left -= 1
        if self._left:
            return None
        self._left = self._one_in
        return self._span(Context(), source, subtask, records)

    def follow(
        self, trace: object, task: str, subtask: int, records: int
    ) -> AbstractContextManager[object]:
        """See `Tracer.follow`."""
        assert isinstance(trace, Context)
        return self._span(trace, task, subtask, records)

    @contextmanager
    def _span(self, parent: Context, task: str, subtask: int, records: int) -> Iterator[Context]:
        with self._tracer.start_as_current_span(
            task,
            parent,
            SpanKind.INTERNAL,
            {
                "flow": flow_name.get() or "",
                "flowrt.task": task,
                "flowrt.subtask": subtask,
                "flowrt.records": records,
            },
        ) as span:
            yield _with(parent, span)


def _with(parent: Context, span: Span) -> Context:
    return trace.set_span_in_context(span, parent)

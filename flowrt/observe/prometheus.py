"""A job's metrics in the format that Prometheus reads. Needs `pip install flowrt[prometheus]`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from flowrt.contract.errors import ConfigError
from flowrt.observe.figures import FIGURES, Figure, Observed, Sample, samples

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of what `exposition` returns."""


class FlowCollector(Collector):
    """Tells a registry of `prometheus_client` the figures of jobs, read when it asks.

    `REGISTRY.register(FlowCollector(job))` beside a service's own metrics, and `unregister` it when
    the job is over. Jobs are told apart by the label `flow`.
    """

    def __init__(self, *jobs: Observed) -> None:
        self._jobs = jobs

    def collect(self) -> Iterable[Metric]:
        """Return all figures as they are now."""
        found: dict[str, list[Sample]] = {}
        for job in self._jobs:
            for figure, told in samples(job):
                found.setdefault(figure.name, []).extend(told)
        return [_family(figure, found.get(figure.name, [])) for figure in FIGURES]

    def describe(self) -> Iterable[Metric]:
        """Return the names, so that a registry need not collect to know them."""
        return [_family(figure, []) for figure in FIGURES]


def exposition(*jobs: Observed) -> bytes:
    """Return the figures of jobs as text for Prometheus, to be sent as `CONTENT_TYPE`."""
    registry = CollectorRegistry()
    registry.register(FlowCollector(*jobs))
    return generate_latest(registry)


def serve(port: int, *jobs: Observed, host: str = "127.0.0.1") -> tuple[int, Callable[[], None]]:
    """Serve the figures of jobs over HTTP, in a thread, on `http://host:port/metrics`.

    Returns the port, which 0 leaves to the system, and what ends it. `ConfigError` where the port
    cannot be had. For a program without a web server of its own.
    """
    registry = CollectorRegistry()
    registry.register(FlowCollector(*jobs))
    try:
        server, thread = start_http_server(port, host, registry)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"metrics cannot be served on {host}:{port}: {error}") from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, stop


def _family(figure: Figure, told: Iterable[Sample]) -> Metric:
    name = f"flowrt_{figure.name}"
    kind = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
    # The unit becomes part of the name, as the conventions want it.
    family = kind(name, figure.help, unit=figure.unit)
    for labels, value in told:
        suffix = "_total" if figure.kind == "counter" else ""
        family.add_sample(family.name + suffix, dict(labels), value)
    return family

"""Runs a job for a command: shows it, drains it at the first signal, cancels it at the second."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import TaskStatus

from flowrt.cli.display import Display, told_warnings
from flowrt.cli.meter import Lag, Meter, beginning, ending
from flowrt.contract.errors import ConfigError
from flowrt.runtime.job import Job, start
from flowrt.runtime.status import ENDED, JobMetrics, JobStatus
from flowrt.stream import Flow

LAG_SECONDS = 1.0
"""How often sources are asked for their lag: it may cost a question to a server."""


def run_flow(
    flow: Flow,
    options: Mapping[str, Any],
    display: Display,
    clock: Callable[[], float] = time.monotonic,
    metrics_port: int | None = None,
) -> JobStatus:
    """Run a flow to its end in an event loop of its own; raises the error of one that fails.

    With `metrics_port`, metrics are served there; `ConfigError` where they cannot be.
    """
    running = _Running(flow, options, display, clock)
    on_uvloop = {"use_uvloop": sys.platform != "win32"}
    with ExitStack() as stack:
        if metrics_port is not None:
            port, stop = _served(metrics_port, running)
            stack.callback(stop)
            display.say(f"{flow.name}: metrics on http://127.0.0.1:{port}/metrics")
        return anyio.run(running.run, backend="asyncio", backend_options=on_uvloop)


def _served(port: int, running: _Running) -> tuple[int, Callable[[], None]]:
    try:
        from flowrt.observe.prometheus import serve
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--metrics-port needs {error.name}: pip install 'flowrt[prometheus]'"
        ) from error
    return serve(port, running)


@dataclass
class _Running:
    flow: Flow
    options: Mapping[str, Any]
    display: Display
    clock: Callable[[], float]
    meter: Meter = field(default_factory=Meter)
    job: Job | None = None
    draining: bool = False
    began: float = 0.0
    said_at_the_end: str = ""

    @property
    def name(self) -> str:
        """The flow's name."""
        return self.flow.name

    def metrics(self) -> JobMetrics:
        """Return the job's metrics; nothing before there is one."""
        return JobMetrics(0, 0, None) if self.job is None else self.job.metrics()

    def status(self) -> JobStatus:
        """Return the job's status."""
        if self.job is None:
            return JobStatus(self.flow.name, "starting", None, None, 0, 0)
        return self.job.status()

    async def run(self) -> JobStatus:
        """Run, and return how it ended."""
        self.began = self.clock()
        status: JobStatus | None = None
        async with anyio.create_task_group() as group:
            await group.start(self._listen, group.cancel_scope)
            try:
                with self.display, told_warnings():
                    async with start(self.flow, **self.options, on_failure="keep") as job:
                        self.job = job
                        job.discard_outputs()
                        status = await self._watch(job)
            finally:
                if self.said_at_the_end:
                    self.display.say(self.said_at_the_end)
            group.cancel_scope.cancel()
        if status is None:
            self.display.say(f"{self.flow.name}: stopped before it began")
            return JobStatus(self.flow.name, "cancelled", None, None, 0, 0)
        return status

    async def _watch(self, job: Job) -> JobStatus:
        lag: Lag = {}
        asked = float("-inf")
        told: set[str] = set()
        first = job.metrics().records_in
        self.display.say(f"{job.name}: {beginning(job.status(), first)}")
        try:
            ended = False
            while not ended:
                status, now = job.status(), self.clock()
                for note in status.notes:
                    if note not in told:
                        told.add(note)
                        self.display.say(f"{job.name}: {note}")
                if status.state == "running" and now >= asked + LAG_SECONDS:
                    lag, asked = await job.lag(), now
                self.display.show(self.meter.view(status, job.metrics(), lag, now - self.began))
                ended = await _ended_within(job, self.display.interval)
        finally:
            self._finish(job, lag, first)
        return job.status()

    def _finish(self, job: Job, lag: Lag, first: int) -> None:
        status, metrics = job.status(), job.metrics()
        if status.state == "finished":
            lag = dict.fromkeys(lag, (0, ""))
        seconds = self.clock() - self.began
        self.display.show(self.meter.view(status, metrics, lag, seconds))
        kept = self.options.get("checkpoints") is not None
        new = metrics.records_in - first
        text = ending(status, metrics.records_in, new, seconds, kept=kept)
        self.said_at_the_end = f"{job.name}: {text}"

    async def _listen(
        self, scope: anyio.CancelScope, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        if sys.platform == "win32":  # no signals to wait for: Ctrl-C arrives as KeyboardInterrupt
            task_status.started()
            return
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                if self.draining or self.job is None or self.job.status().state in ENDED:
                    break
                self._drain(self.job, scope)
        # From here on a signal does what it does to any process: whoever is stuck can be stopped.
        if self.job is None:
            scope.cancel()
        else:
            self.display.say(f"{self.flow.name}: stopping at once")
            await self.job.cancel()

    def _drain(self, job: Job, scope: anyio.CancelScope) -> None:
        self.draining = True
        self.display.say(
            f"{job.name}: draining, so that the last epoch commits (once more: stop at once)"
        )
        job.request_drain()


async def _ended_within(job: Job, seconds: float) -> bool:
    with anyio.move_on_after(seconds):
        await job.wait()
        return True
    return False

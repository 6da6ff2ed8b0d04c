"""Running a flow as the whole program: an event loop of its own, signals that drain."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Unpack

import anyio

from flowrt.contract.logs import flow_log
from flowrt.runtime.job import Job, Planned, start
from flowrt.runtime.options import StartOptions
from flowrt.runtime.status import JobStatus

log = flow_log()


def run(flow: Planned, **options: Unpack[StartOptions]) -> JobStatus:
    """Run a flow to its end in an event loop of its own (uvloop if there is one).

    The first SIGINT or SIGTERM drains: the sources stop, the last epoch commits. A second one
    cancels. In a thread beside the main one signals stay what they are. Nobody can iterate over
    outputs here, so their values are dropped. `options` are those of `start`, which raises the same
    errors. Not for use inside a running event loop.
    """
    return anyio.run(_run, flow, options, backend_options={"use_uvloop": sys.platform != "win32"})


async def _run(flow: Planned, options: StartOptions) -> JobStatus:
    async with start(flow, **options) as job, anyio.create_task_group() as group:
        job.discard_outputs()
        if _gets_signals():
            group.start_soon(drain_on_signals, job)
        await job.wait()
        group.cancel_scope.cancel()
    return job.status()


def _gets_signals() -> bool:
    # Windows has none to wait for: there Ctrl-C arrives as KeyboardInterrupt.
    return sys.platform != "win32" and threading.current_thread() is threading.main_thread()


async def drain_on_signals(job: Job) -> None:
    """Drain a job at the first SIGINT or SIGTERM, cancel it at the second."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        asked = False
        async for received in signals:
            if asked:
                log.warning("%s again: cancelling", received.name)
                await job.cancel()
                return
            asked = True
            log.info("%s: draining, the last epoch commits; once more to cancel", received.name)
            job.request_drain()

"""A job: one flow that runs, restarts where it may, and tells how it stands."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, Protocol, TypeVar, Unpack, overload

import anyio
from anyio.lowlevel import checkpoint

from flowrt.contract.errors import ConfigError, GraphError, LeaseError
from flowrt.contract.logs import flow_log, flow_name
from flowrt.contract.state import (
    AggregatingState,
    ListState,
    MapState,
    ReducingState,
    StateSpec,
    ValueState,
)
from flowrt.contract.waiting import sleep_ms
from flowrt.graph.nodes import Plan, SinkNode
from flowrt.runtime.attempt import Attempt
from flowrt.runtime.callers import Callers
from flowrt.runtime.epochs import Epochs
from flowrt.runtime.errors import ended_by, leaves
from flowrt.runtime.job_sources import JobSources
from flowrt.runtime.live_state import LiveState, LiveStates
from flowrt.runtime.observations import Observations
from flowrt.runtime.options import JobOptions, StartOptions
from flowrt.runtime.output import JobOutput, OutputIterator
from flowrt.runtime.own_counters import OwnCounters
from flowrt.runtime.ownership import Ownership, take_ownership
from flowrt.runtime.readable_states import ReadableStates
from flowrt.runtime.status import ENDED, EpochMetrics, JobMetrics, JobState, JobStatus
from flowrt.runtime.watchdog import watched
from flowrt.runtime.wiring import AnyTask

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

log = flow_log()


class Job:
    """A running flow, made by `start`; to be used from any task of the same event loop.

    Methods but `status`, `metrics` and `on_epoch` raise `FlowrtError` at once when they are called
    from another thread or event loop, and change nothing. So do `wait`, `drain` and `savepoint`
    within an operator, source or sink of the flow, which would wait for itself; a task that it
    started may call them. Once the job has ended, everybody may.
    """

    def __init__(self, plan: Plan, options: JobOptions) -> None:
        self.name = plan.graph.name
        self._plan = plan
        self._options = options
        self._state: JobState = "starting"
        self._error: BaseException | None = None
        self._not_ours: BaseException | None = None
        """What ended the flow, and is to end more than that: `KeyboardInterrupt`, say."""
        self._ended = anyio.Event()
        self._started = anyio.Event()
        self._scope = anyio.CancelScope()
        self._ownership: Ownership | None = None
        self._sources = JobSources(plan, options)
        self._attempt: Attempt | None = None
        self._last_status: JobStatus | None = None
        self._draining = False
        self._restarts = 0
        self._failures = 0
        self._committed: int | None = None
        self._observations = Observations(options.world.clock)
        self._epochs = Epochs()
        self._own_counters = OwnCounters(plan)
        self._skipped: dict[str, int] = {}
        self._dead_letters: dict[str, int] = {}
        self._callers = Callers(self.name, lambda: self._attempt, self._ended.is_set)
        self._live = LiveStates(
            self.name,
            ReadableStates(plan),
            lambda: self.status().epoch,
            options.world.clock.now_ms,
            self._callers,
        )
        self._outputs = {
            node.id: node.sink
            for node in plan.graph.nodes
            if isinstance(node, SinkNode) and isinstance(node.sink, JobOutput)
        }

    # ------------------------------------------------------------------ what a user may ask

    async def wait(self) -> None:
        """Wait until the flow finished, drained or was cancelled; raise the error of a failed."""
        self._may_wait("wait")
        await self._until_it_ended()
        if self._error is not None:
            raise self._error

    async def drain(self) -> None:
        """Stop the sources, let a last epoch commit, end. Returns then; raises if the flow failed.

        Event time does not end: windows stay open, and a later start goes on where this one
        stopped.
        """
        self._may_wait("drain")
        self.request_drain()
        await self.wait()

    def request_drain(self) -> None:
        """Begin to drain without waiting for it; an operator of the flow may call it, too."""
        self._callers.check_loop("request_drain", waits=False)
        self._draining = True
        for output in self._outputs.values():
            output.drain()
        if self._state == "running" and self._attempt is not None:
            self._state = "draining"
            self._attempt.drain()
        elif self._state == "restarting":
            # Nothing runs that could make a last epoch: the last committed one is where it stops.
            self._scope.cancel()

    async def cancel(self) -> None:
        """Stop at once; what the last committed epoch holds stays, nothing else becomes visible.

        Returns when it has stopped. An operator, source or sink of the flow is cancelled with it.
        """
        self._callers.check_loop("cancel")
        self._scope.cancel()
        if self._callers.inside() is None:
            await self._until_it_ended()
        else:
            await checkpoint()

    async def savepoint(self, path: str | Path) -> int:
        """Write a self-contained snapshot into an empty or new folder; return its epoch.

        `CheckpointError` where it cannot be written; the flow goes on then. `ConfigError` where the
        job keeps no checkpoints or does not run, or the folder lies in that of its checkpoints.
        """
        self._may_wait("savepoint")
        if self._options.checkpoints is None:
            raise ConfigError("savepoint needs a job with checkpoints=...")
        if self._attempt is None or self._state != "running":
            raise ConfigError(
                f"job {self.name!r} is {self._state}: a savepoint needs a running job"
            )
        _refuse_within(self._options.checkpoints, path)
        return await self._attempt.savepoint(str(path))

    def status(self) -> JobStatus:
        """Say where the job stands."""
        attempt, ownership = self._attempt, self._ownership
        epoch = attempt.committed if attempt is not None else None
        return JobStatus(
            self.name,
            self._state,
            epoch if epoch is not None else self._committed,
            attempt.restored_epoch if attempt is not None else None,
            self._restarts,
            ownership.generation if ownership is not None else 0,
            tuple(attempt.notes) if attempt is not None else (),
            None if self._error is None else str(self._error),
        )

    def metrics(self) -> JobMetrics:
        """Return counters as they are now; cheap, and may be called from any thread.

        Counted are all attempts of the job in this process: but for `records_in`, which is what the
        snapshot says after a restart, no counter goes back.
        """
        if self._attempt is None:
            return JobMetrics(0, 0, None)
        metrics = self._attempt.metrics(self._observations)
        epoch, now_ms = self._epochs.last, self._options.world.clock.now_ms()
        return replace(
            metrics,
            epoch=epoch,
            epoch_age_ms=None if epoch is None else max(0, now_ms - epoch.committed_ms),
            epochs=self._epochs.totals,
            restarts=self._restarts,
            skipped=_added(self._skipped, metrics.skipped),
            dead_letters=_added(self._dead_letters, metrics.dead_letters),
            counters=self._own_counters.now(),
        )

    def on_epoch(self, call: Callable[[EpochMetrics], None]) -> Callable[[], None]:
        """Call `call` in the event loop after each epoch that commits; it must not wait.

        Returns a function that ends it. What `call` raises is logged; the flow goes on.
        """
        return self._epochs.listen(call)

    @overload
    def output(self, output: JobOutput[T]) -> OutputIterator[T]: ...
    @overload
    def output(self, output: str) -> OutputIterator[Any]: ...
    def output(self, output: JobOutput[Any] | str) -> OutputIterator[Any]:
        """Iterate over the values of an output, by its name or as `Stream.output` returned it.

        Each iterator gets every value from the moment of this call, the first also those before.
        It ends when the job ends, and raises what a failed one failed with. See `JobOutput`.
        """
        self._callers.check_loop("output", waits=False)
        for name, known in self._outputs.items():
            if output == name or output is known:
                return known.iterate()
        names = ", ".join(map(repr, self._outputs)) or "none"
        what = repr(output) if isinstance(output, str) else f"{output.name!r} of another flow"
        raise ConfigError(f"job {self.name!r} has no output {what}; its outputs are: {names}")

    @overload
    def state(
        self, operator: str, state: ValueState[T] | ReducingState[T]
    ) -> LiveState[Any, T]: ...
    @overload
    def state(self, operator: str, state: ListState[T]) -> LiveState[Any, list[T]]: ...
    @overload
    def state(self, operator: str, state: MapState[K, V]) -> LiveState[Any, dict[K, V]]: ...
    @overload
    def state(self, operator: str, state: AggregatingState[Any, Any, T]) -> LiveState[Any, T]: ...
    @overload
    def state(self, operator: str, state: str | None = None) -> LiveState[Any, Any]: ...
    def state(
        self, operator: str, state: StateSpec[Any] | str | None = None
    ) -> LiveState[Any, Any]:
        """Read what an operator keeps for its keys, while it runs; see `LiveState`.

        `state` is the state's name or its declaration, and may be left out where there is but one.
        `ConfigError` for an operator or state that there is not, listing those there are.
        """
        return self._live.state(operator, state)

    async def lag(self) -> dict[str, tuple[int, str]]:
        """Return how much each source that can tell has still to read, and the unit."""
        self._callers.check_loop("lag")
        return {} if self._attempt is None else await self._attempt.lag()

    def _may_wait(self, method: str) -> None:
        self._callers.check_loop(method)
        self._callers.check_outside(method)

    async def _until_it_ended(self) -> None:
        if self._ended.is_set():
            await checkpoint()  # in whatever event loop
        else:
            await self._ended.wait()

    # ------------------------------------------------------------------ life

    async def _run(self, *, task_group: anyio.abc.TaskGroup) -> None:
        """Run to the end, restarting; keeps an error of the flow for `wait`."""
        flow_name.set(self.name)
        try:
            with self._scope, watched(self._options.watchdog, self.name, self._tasks):
                await self._supervise()
            if self._scope.cancelled_caught:
                self._state = "cancelled"
        except Exception as error:
            self._error = error
            self._state = "failed"
            if self._options.on_failure == "keep":
                # Otherwise the error is raised where nobody can overlook it.
                log.error("flow %s failed: %s", self.name, error, extra={"flow_ended": self.name})
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            raise
        except BaseException as error:
            # The caller of the event loop gets it, by way of `start`; whoever asks the job is told.
            self._not_ours, self._error = error, ended_by(self.name, error)
            self._state = "failed"
        finally:
            if self._state not in ENDED:
                self._state = "cancelled"
            if self._ownership is not None:
                self._ownership.release()
            self._live.end(self._state)
            self._sources.tell_end()
            for output in self._outputs.values():
                output.end(self._error)
            self._started.set()
            self._ended.set()
        fails_body = self._error is not None and self._options.on_failure == "cancel"
        if fails_body or self._not_ours is not None:
            task_group.cancel_scope.cancel()

    def _tasks(self) -> Sequence[AnyTask]:
        return () if self._attempt is None else self._attempt.tasks

    def _begin_outputs(self) -> None:
        for output in self._outputs.values():
            output.begin()

    def discard_outputs(self) -> None:
        """Drop what goes to outputs: for a program in which nobody iterates over them."""
        for output in self._outputs.values():
            log.warning(
                "flow %s: nobody can iterate over output %r here, so its values are dropped: use "
                "flowrt.start, or a sink",
                self.name,
                output.name,
                extra={"flow": self.name, "operator": output.name},
            )
            output.discard()

    async def _supervise(self) -> None:
        self._ownership = await take_ownership(self._plan, self._options, self._sources.claim)
        try:
            await self._try_until_it_ends(self._ownership)
        finally:
            if not self._started.is_set():
                await self._ownership.withdraw()

    async def _try_until_it_ends(self, ownership: Ownership) -> None:
        while True:
            try:
                if self._restarts:
                    await ownership.next_generation()
                await self._try()
                return
            except (ConfigError, GraphError, LeaseError):
                raise
            except Exception as error:
                if not await self._may_restart(error):
                    raise

    async def _try(self) -> None:
        assert self._ownership is not None
        attempt = Attempt(self._plan, self._options, self._ownership)
        attempt.on_epoch = self._epochs.committed
        self._keep_counts()
        self._observations.begin(attempt.tasks)
        self._attempt = attempt
        try:
            async with attempt.opened():
                await self._ownership.begin()
                self._state = "draining" if self._draining else "running"
                self._started.set()
                if self._draining:
                    attempt.drain()
                self._live.begin(attempt.backends, self._ownership.store)
                try:
                    await attempt.run()
                finally:
                    self._live.pause()
        finally:
            if attempt.committed is not None:
                self._committed = attempt.committed
            if attempt.made_progress:
                self._failures = 0
        self._state = "finished" if attempt.input_ended else "drained"

    def _keep_counts(self) -> None:
        """Keep what the attempt before counted by itself."""
        if self._attempt is not None:
            before = self._attempt.metrics(self._observations)
            self._skipped = _added(self._skipped, before.skipped)
            self._dead_letters = _added(self._dead_letters, before.dead_letters)

    async def _may_restart(self, error: Exception) -> bool:
        """Wait for the next try; say whether there is one."""
        world = self._options.world
        self._failures += 1
        if self._attempt is not None and self._attempt.epoch_is_open:
            self._epochs.failed()
        delay_ms = self._options.restart.delay_ms(self._failures, world.randomness.fraction())
        if delay_ms is None or self._draining:
            return False
        self._state = "restarting"
        self._restarts += 1
        log.warning("flow %s failed, next try in %d ms: %s", self.name, delay_ms, error)
        await sleep_ms(world.clock, delay_ms)
        return True


def _refuse_within(checkpoints: str | Path | None, savepoint: str | Path) -> None:
    """A savepoint shares nothing with the checkpoints, which the job deletes as it goes on."""
    folder = os.path.realpath(str(checkpoints))
    if PurePath(os.path.realpath(str(savepoint))).is_relative_to(folder):
        raise ConfigError(
            f"a savepoint needs a folder of its own, and {savepoint} lies in the checkpoint folder "
            f"{checkpoints}: choose one beside it"
        )


def _added(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return {id: first.get(id, 0) + second.get(id, 0) for id in {**first, **second}}


class Planned(Protocol):
    """What can be run: a `Flow`."""

    def plan(self) -> Plan:
        """Return the tasks of the flow; `GraphError` where it cannot run."""
        ...


@asynccontextmanager
async def start(flow: Planned, **options: Unpack[StartOptions]) -> AsyncIterator[Job]:
    """Run a flow beside the body of `async with`, in the caller's event loop.

    Entering waits until the flow has recovered and its operators are open. Leaving drains it: the
    sources stop, the last epoch commits. An exception or a cancellation in the body cancels the
    flow instead. A flow that fails cancels the body and its error is raised here; with
    `on_failure="keep"` the body goes on, and the error is raised by `job.wait()` and on leaving.
    What a function of the flow raises and is no `Exception`, such as `SystemExit`, cancels the body
    in any case, is raised here as it is, and `job.wait()` raises a `FlowrtError` from it.
    Touches neither signal handlers nor the loop.

    `options` are those of `JobOptions`. Raises `GraphError`, `ConfigError`, `LeaseError`,
    `CheckpointError` before the body runs.
    """
    job = Job(flow.plan(), JobOptions(**options))
    job._begin_outputs()
    job._sources.check()
    body_error: BaseException | None = None
    async with anyio.create_task_group() as group:

        async def run() -> None:
            await job._run(task_group=group)

        group.start_soon(run)
        await job._started.wait()
        if job._error is None:
            try:
                yield job
            except (Exception, GeneratorExit, KeyboardInterrupt, SystemExit) as error:
                # Kept until the group is left, which would wrap it in a group of its own.
                body_error = error
                await job.cancel()
            else:
                job.request_drain()
                await job._ended.wait()
    if job._not_ours is not None:
        raise job._not_ours
    # A body that waits for the job in a task group of its own hands the job's error back in a
    # group.
    if body_error is not None and leaves(body_error) != [job._error]:
        raise body_error
    if job._error is not None:
        raise job._error

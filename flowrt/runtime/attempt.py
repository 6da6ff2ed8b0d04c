"""One try at running a flow: recover, open everything, run, close everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import copy_context
from functools import partial

import anyio

from flowrt.checkpoint.coordinator import Coordinator, EpochStatistics, Links, Participants
from flowrt.contract.elements import MAX_TIMESTAMP, MIN_TIMESTAMP
from flowrt.contract.errors import ConfigError, FlowrtError
from flowrt.contract.failpoints import failpoint
from flowrt.contract.logs import flow_log, operator_name
from flowrt.contract.sink import Committable, SinkContext
from flowrt.contract.snapshot import CoordinatorMessage, TaskMessage
from flowrt.contract.steps import Connect, Process
from flowrt.dataflow.sources.source_task import SourceTask
from flowrt.dataflow.tasks.async_task import AsyncTask
from flowrt.dataflow.tasks.sink_task import SinkTask
from flowrt.graph.check import declared_states, made
from flowrt.graph.nodes import Plan, SinkNode, StepNode
from flowrt.runtime.errors import asked, not_ours, single
from flowrt.runtime.observations import Observations
from flowrt.runtime.options import JobOptions
from flowrt.runtime.output import JobOutput
from flowrt.runtime.ownership import Ownership, Restored
from flowrt.runtime.status import JobMetrics
from flowrt.runtime.wiring import AnyTask, Memory, Surroundings, build_tasks, committables
from flowrt.state.broadcast import BroadcastStates
from flowrt.state.key_groups import key_group
from flowrt.state.memory import MemoryBackend
from flowrt.state.values import DescribedValues

log = flow_log()

CLOSE_SECONDS = 30
"""How long an operator, reader or writer may take to close once the job stops."""


class Attempt:
    """One try. Made anew for each restart; nothing of it is used twice."""

    def __init__(self, plan: Plan, options: JobOptions, ownership: Ownership) -> None:
        self._plan = plan
        self._options = options
        self._ownership = ownership
        self._sinks = {node.id: node for node in plan.graph.nodes if isinstance(node, SinkNode)}
        self.tasks: list[AnyTask] = []
        self._coordinator: Coordinator | None = None
        self.on_epoch: Callable[[EpochStatistics], None] = _ignore
        """Hears how each epoch went that was committed."""
        self.notes: list[str] = []
        self.restored_epoch: int | None = None
        self.backends: dict[str, list[MemoryBackend]] = {}
        """The keyed state of each operator, by subtask."""

    # ------------------------------------------------------------------ life

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Recover and open everything; close it on the way out, whatever the way."""
        async with AsyncExitStack() as stack:
            for node in self._sinks.values():
                stack.push_async_callback(closed, f"sink {node.id!r}", node.sink.close)
            memory = await self._recover()
            for node in self._sinks.values():
                prepared = committables(memory.parts(node.id))
                recovered = node.sink.recover(
                    self.restored_epoch, prepared, self._sink_context(node)
                )
                await asked(node.id, f"recover epoch {self.restored_epoch}", recovered)
            failpoint("sinks.resolved")
            async for task in build_tasks(self._plan, self._surroundings(memory)):
                # At once: what a task holds is let go of also where a later one cannot be built.
                stack.push_async_callback(closed, f"task {task.desk.task!r}", task.close)
                self.tasks.append(task)
            failpoint("state.loaded")
            self._coordinator = self._make_coordinator(memory.recovery.next_epoch)
            for task in self.tasks:
                await task.open()
            self._check_states()
            failpoint("sources.sought")
            yield

    async def run(self) -> None:
        """Return when the input ended or the drain is done; raises one error, never a group."""
        assert self._coordinator is not None
        failpoint("job.resumed")
        try:
            async with anyio.create_task_group() as group:
                for task in self.tasks:
                    # It takes over what is set where it is started.
                    context = copy_context()
                    context.run(operator_name.set, task.desk.task)
                    name = f"flowrt {task.desk.task}"
                    context.run(partial(group.start_soon, task.run, name=name))
                group.start_soon(self._coordinator.run, name="flowrt coordinator")
        except BaseExceptionGroup as errors:
            error = not_ours(errors) or single(errors)
            if isinstance(error, GeneratorExit):
                # It would end this coroutine as if somebody had closed it.
                raise FlowrtError(
                    f"a function of flow {self._plan.graph.name!r} raised GeneratorExit, with "
                    "which Python closes generators: raise another exception"
                ) from error
            raise error from error.__cause__
        if group.cancel_scope.cancel_called:
            # Nobody here cancels that scope: it ends so when one of the tasks was cancelled alone.
            raise FlowrtError(
                f"a task of flow {self._plan.graph.name!r} was cancelled from outside: to stop the "
                "flow, cancel or drain its job"
            )

    def drain(self) -> None:
        """Stop the sources; a last epoch commits."""
        assert self._coordinator is not None
        self._coordinator.drain()

    async def savepoint(self, path: str) -> int:
        """Copy the next epoch's snapshot; return its number."""
        assert self._coordinator is not None
        return await self._coordinator.savepoint(path)

    # ------------------------------------------------------------------ pieces

    async def _recover(self) -> Restored:
        deciding = self._deciding()
        context = self._sink_context(deciding) if deciding is not None else None
        restored = await self._ownership.recover(deciding, context)
        self.notes = restored.recovery.notes
        self.restored_epoch = restored.recovery.epoch
        for note in self.notes:
            log.warning("flow %s: %s", self._plan.graph.name, note)
        return restored

    def _check_states(self) -> None:
        """Refuse restored state that its operator, whose states are all known, does not declare.

        Most likely an attribute was renamed: the state would begin anew without a word.
        """
        nodes = [n for n in self._plan.graph.nodes if isinstance(n, StepNode)]
        declaring = {
            node.id
            for node in nodes
            if isinstance(node.step, Process | Connect) and declared_states(made(node))
        }
        for task in self.tasks:
            for operator, state in [] if isinstance(task, SinkTask) else task.chain.undeclared():
                known = f"{operator}.{state}"
                if operator in declaring and known not in self._options.allow_dropped_state:
                    raise ConfigError(
                        f"the snapshot has state {state!r} of operator {operator!r}, which "
                        "declares none of that name: give it its old name back, with "
                        f"name={state!r}, or let it go: allow_dropped_state=[{known!r}]"
                    )

    def _surroundings(self, memory: Memory) -> Surroundings:
        return Surroundings(
            self._options.world,
            memory,
            self._receive,
            self._ownership.generation,
            self._options.channel_capacity,
            blocking=self._options.resolved_delivery == "exactly_once",
            backend=self._backend,
            key_group=key_group,
            codec=DescribedValues,
            broadcast=BroadcastStates,
            tracer=self._options.tracer,
        )

    def _backend(self, operator: str) -> MemoryBackend:
        # Asked for subtask by subtask.
        backend = MemoryBackend(operator)
        self.backends.setdefault(operator, []).append(backend)
        return backend

    def _make_coordinator(self, first_epoch: int) -> Coordinator:
        deciding = self._deciding()
        participants = Participants(
            self._plan.graph.name,
            self._options.resolved_delivery,
            {task.id: task.parallelism for task in self._plan.tasks},
            [task.id for task in self._plan.tasks if task.source is not None],
            list(self._sinks),
            deciding.id if deciding is not None else None,
        )
        return Coordinator(
            participants,
            Links(self._tell, self._commit, self.on_epoch),
            self._options.scheduler,
            self._options.world.clock,
            self._ownership.store,
            first_epoch=first_epoch,
        )

    def _deciding(self) -> SinkNode | None:
        return next((n for n in self._sinks.values() if n.sink.kind == "deciding"), None)

    async def _commit(self, epoch: int, committables: Mapping[str, Sequence[Committable]]) -> None:
        for sink, prepared in committables.items():
            committed = self._sinks[sink].sink.commit(epoch, prepared)
            again = "; the commit comes again at the next start"
            await asked(sink, f"commit epoch {epoch}", committed, again)

    @property
    def _sources(self) -> list[SourceTask]:
        return [task for task in self.tasks if isinstance(task, SourceTask)]

    def _receive(self, message: TaskMessage) -> None:
        assert self._coordinator is not None
        self._coordinator.receive(message)

    def _tell(self, message: CoordinatorMessage) -> None:
        for task in self.tasks:
            if isinstance(task, SourceTask | AsyncTask):
                task.receive(message)

    def _sink_context(self, node: SinkNode) -> SinkContext:
        options, generation = self._options, self._ownership.generation
        return SinkContext(
            node.id, 0, node.parallelism, generation, options.world, options.take_over
        )

    # ------------------------------------------------------------------ what it tells

    @property
    def committed(self) -> int | None:
        """The last committed epoch, of this try or the one restored."""
        done = self._coordinator.committed if self._coordinator is not None else None
        return self.restored_epoch if done is None else done

    @property
    def made_progress(self) -> bool:
        """Whether this try committed an epoch."""
        return self._coordinator is not None and self._coordinator.committed is not None

    @property
    def epoch_is_open(self) -> bool:
        """Whether an epoch is under way."""
        return self._coordinator is not None and self._coordinator.open is not None

    @property
    def input_ended(self) -> bool:
        """Whether the sources came to their end."""
        return self._coordinator is not None and self._coordinator.input_ended

    def metrics(self, observations: Observations) -> JobMetrics:
        """Return counters as they are now."""
        tasks, operators = observations.look()
        sinks = [task for task in tasks if task.kind == "sink"]
        watermark = min((task.watermark for task in sinks), default=MIN_TIMESTAMP)
        return JobMetrics(
            records_in=sum(source.splits.records() for source in self._sources),
            records_out=sum(task.records_in for task in sinks),
            watermark=None if watermark in (MIN_TIMESTAMP, MAX_TIMESTAMP) else watermark,
            tasks=tasks,
            operators=operators,
            bottleneck=observations.bottleneck(tasks, operators),
            dropped=self._dropped(),
            skipped=self._failed_records("skip"),
            dead_letters=self._failed_records("dead_letter"),
        )

    def _dropped(self) -> dict[str, int]:
        total: Counter[str] = Counter()
        for task in self.tasks:
            if not isinstance(task, SinkTask):
                total.update(task.chain.dropped())
        for id, node in self._sinks.items():
            if isinstance(node.sink, JobOutput) and node.sink.dropped:
                total[id] = node.sink.dropped
        return dict(total)

    def _failed_records(self, action: str) -> dict[str, int]:
        total: Counter[str] = Counter()
        for task in self.tasks:
            for judge in (
                ()
                if isinstance(task, SinkTask)
                else (task if isinstance(task, AsyncTask) else task.chain).judges()
            ):
                if judge.policy.action == action and judge.failed_records:
                    total[judge.operator] += judge.failed_records
        return dict(total)

    async def lag(self) -> dict[str, tuple[int, str]]:
        """Return how much each source has still to read, where it can tell."""
        lags: dict[str, tuple[int, str]] = {}
        for source in self._sources:
            lag = await source.lag()
            if lag is not None:
                id = source.desk.task
                lags[id] = (lags.get(id, (0, ""))[0] + lag[0], lag[1])
        return lags


def _ignore(statistics: EpochStatistics) -> None:
    """Tell nobody."""


async def closed(what: str, close: Callable[[], Awaitable[None]]) -> None:
    """Close one thing, also under cancellation; what cannot be closed must not hold up the rest."""
    with anyio.move_on_after(CLOSE_SECONDS, shield=True):
        try:
            await close()
        except Exception:
            log.exception("could not close %s", what)

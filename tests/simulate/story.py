"""One seed: a flow is drawn, and a job that runs it through lives that end in every way."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import anyio
from anyio.abc import TaskGroup

import flowrt
from flowrt import FixedDelay, FlowrtError, Job, LeaseError, NoRestart
from flowrt.contract.failpoints import arm_failpoints
from flowrt.contract.waiting import sleep_ms
from flowrt.runtime.errors import leaves
from tests.journeys.crash.judge import Verdict
from tests.simulate.ends import ViolationError
from tests.simulate.faults import DiedError, Faults, InjectedError, draw_errors, draw_faults
from tests.simulate.flows import build_flow
from tests.simulate.loops import Loop, run_simulated
from tests.simulate.machine import Machine, Process, current
from tests.simulate.model import judge_all
from tests.simulate.outputs import Reading
from tests.simulate.spec import Spec, draw_spec

Ending: TypeAlias = Literal["run", "drain", "cancel", "savepoint", "hand over", "intrude"]
"""What is done to a job while it runs, if it lives so long. "run" leaves it alone."""

ENDINGS: Final[tuple[Ending, ...]] = ("run", "drain", "cancel", "savepoint", "hand over", "intrude")
LONG_MS: Final = 3_000


@dataclass(slots=True)
class Result:
    """How a seed went."""

    seed: int
    loop: Loop
    verdict: Verdict
    counts: dict[str, int]
    digest: str
    story: list[str]
    trace: list[str]

    @property
    def right(self) -> bool:
        """Whether everything was written as it must be."""
        return self.verdict == Verdict()


class BadRunError(AssertionError):
    """A run that failed of itself; the message has its story, `trace` what happened before."""

    def __init__(self, message: str, trace: list[str]) -> None:
        super().__init__(message)
        self.trace = trace


def run_seed(seed: int, *, keep_trace: bool = False) -> Result:
    """Run a seed; `BadRunError` where the job fails of itself, or is stuck."""
    loop: Loop = "trio" if seed % 2 else "asyncio"
    machine = Machine(str(seed), keep_trace=keep_trace)
    story = Story(machine)
    arm_failpoints(machine.at_failpoint)
    try:
        run_simulated(loop, story.run, machine.clock, str(seed))
        if machine.violations:
            raise ViolationError("; ".join(machine.violations))
    except (Exception, BaseExceptionGroup) as error:
        lines = "\n".join([str(story.spec), *story.lines])
        what = "; ".join(f"{type(one).__name__}: {one}" for one in leaves(error))
        note = f"seed {seed} on {loop}: {what}\n{lines}"
        raise BadRunError(note, machine.trace) from error
    finally:
        arm_failpoints(None)
    verdict = judge_all(story.spec, machine.disk, machine.counts)
    counts = dict(machine.counts)
    return Result(
        seed,
        loop,
        verdict,
        counts,
        machine.digest,
        [str(story.spec), *story.lines],
        machine.trace,
    )


@dataclass
class Story:
    """The lives of one job."""

    machine: Machine
    lines: list[str] = field(default_factory=list)
    folder: str = "/checkpoints"
    restore: str | None = None
    savepoints: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(f"{self.machine.seed} story")
        self.spec: Spec = draw_spec(self.chance)

    async def run(self) -> None:
        """Live until the input is at its end, and sometimes once more."""
        async with anyio.create_task_group() as group:
            for _ in range(self.chance.choice([1, 2, 3, 4, 6])):
                life = self._draw_life()
                group.start_soon(life.live)
                await life.over.wait()
            for process in self.machine.processes:
                process.end()
        for _ in range(self.chance.choice([1, 1, 1, 2])):
            await self._last_life()

    async def _last_life(self) -> None:
        """Run to the end of the input, disturbed by nothing that a restart would not mend."""
        restore = self.restore
        last = self._mended_life()
        await last.live()
        if restore is not None and last.state != "finished":
            # A life before brought the savepoint in: now it must do without it.
            last = self._mended_life()
            await last.live()
        if last.state != "finished":
            raise ViolationError(f"an undisturbed life ended {last.state}, not finished")

    def _mended_life(self) -> Life:
        return Life(self, draw_errors(self.chance), "run", 0, take_over=False, restarts=True)

    def _draw_life(self) -> Life:
        chance = self.chance
        faults = draw_faults(chance)
        ending = chance.choice(ENDINGS)
        others = any(process.alive for process in self.machine.processes)
        return Life(self, faults, ending, int(2 ** chance.uniform(2, 10)), take_over=others)


@dataclass
class Life:
    """One process that runs the job; `over` once the next may begin."""

    story: Story
    faults: Faults
    ending: Ending
    after_ms: int
    take_over: bool
    restarts: bool = False
    """Whether an error surely begins another attempt; else that is drawn."""

    def __post_init__(self) -> None:
        self.machine = self.story.machine
        self.over = anyio.Event()
        self.state = "never started"
        self.process = Process(self.machine, self.faults)
        self.chance = self.process.chance

    async def live(self) -> None:
        """Run the job until it ends or dies."""
        token = current.set(self.process)
        machine, number = self.machine, self.process.number
        machine.note(f"{number} begins: {self.ending} after {self.after_ms}, {self.faults}")
        machine.counts["lives"] += 1
        try:
            with self.process.scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(self.process.die_in_time)
                    await self._run()
                    group.cancel_scope.cancel()
        except (Exception, BaseExceptionGroup) as error:
            self._judge_error(error)
        finally:
            if not self.process.alive:
                self.state = f"dead ({self.faults.death})"
            self.process.end()
            for output in self.story.spec.outputs():
                # Where a checkpoint cannot be read the job may go on from the one before.
                output.may_repeat |= self.process.disk_failed
            self.story.lines.append(
                f"life {number}: {self.ending} after {self.after_ms} ms, {self.faults}, "
                f"{self.process.operations} operations: {self.state}"
            )
            machine.note(f"{number} is over: {self.state}")
            current.reset(token)
            self.over.set()

    async def _run(self) -> None:
        readings: list[Reading] = []
        async with anyio.create_task_group() as readers:
            await self._run_job(readers, readings)
        if self.process.alive and self.state in ("finished", "drained"):
            for reading in readings:
                reading.judge()
                self.machine.counts["outputs judged"] += 1

    async def _run_job(self, readers: TaskGroup, readings: list[Reading]) -> None:
        flow = build_flow(self.story.spec, self.process)
        restarts = self.restarts or self.chance.random() < 0.6
        restart = FixedDelay("50ms", attempts=20) if restarts else NoRestart()
        async with flowrt.start(
            flow,
            checkpoints=self.story.folder,
            delivery=self.story.spec.delivery,
            scheduler=flowrt.Continuous(self.chance.choice(["5ms", "20ms", "50ms", "50ms"])),
            restart=restart,
            restore=self.story.restore,
            take_over=self.take_over,
            channel_capacity=self.chance.choice([1, 3, 20, 2048]),
            keep_checkpoints=self.chance.choice([1, 2, 3]),
            on_failure="keep",
            world=self.process.world,
        ) as job:
            if job.status().restored_epoch is not None:
                self.machine.counts["restores"] += 1
            self.story.restore = None
            for output in self.story.spec.outputs():
                reading = Reading(output, job, self.process)
                readings.append(reading)
                readers.start_soon(reading.run)
                output.may_repeat |= self.take_over
            if self.ending != "run":
                await self._until(job, self.after_ms)
                await self._end(job)
            try:
                await job.wait()
            finally:
                self.state = job.status().state
                self.machine.counts["restarts"] += job.status().restarts
                self.machine.note(f"{self.process.number} ended: {job.status()}")

    async def _until(self, job: Job, after_ms: int) -> None:
        """Wait for a time, or for the job's end."""
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def ended() -> None:
                    try:
                        await job.wait()
                    except Exception:
                        pass  # told by whoever waits for the job itself
                    scope.cancel()

                group.start_soon(ended)
                await sleep_ms(self.machine.clock, after_ms)
                scope.cancel()

    async def _end(self, job: Job) -> None:
        machine = self.machine
        if job.status().state not in ("running", "restarting"):
            return
        machine.counts[self.ending] += 1
        if self.ending == "drain":
            await job.drain()
        elif self.ending == "cancel":
            await job.cancel()
        elif self.ending == "hand over":
            self.over.set()
            await self._until(job, LONG_MS)
            await job.cancel()
        elif self.ending == "intrude":
            await self._intrude(job)
        elif self.ending == "savepoint":
            await self._savepoint(job)

    async def _intrude(self, job: Job) -> None:
        """Start a second instance where one runs: it is refused."""
        intruder = Process(self.machine, Faults(slow=self.faults.slow))
        token = current.set(intruder)
        try:
            with intruder.scope:
                async with flowrt.start(
                    build_flow(self.story.spec, intruder),
                    checkpoints=self.story.folder,
                    world=intruder.world,
                ):
                    if job.status().state in ("running", "restarting", "draining"):
                        raise ViolationError("two instances own a folder")
                    intruder.end()
        except LeaseError:
            pass
        finally:
            intruder.end()
            current.reset(token)

    async def _savepoint(self, job: Job) -> None:
        story = self.story
        story.savepoints += 1
        path = f"/savepoints/{story.savepoints}"
        try:
            epoch = await job.savepoint(path)
        except FlowrtError:
            return
        if self.chance.random() < 0.5:
            return  # only written, and the job goes on
        await job.cancel()
        if story.spec.has_sink("deciding") and job.status().epoch != epoch:
            return  # its sink would not go back
        for output in story.spec.outputs():
            output.may_repeat = True  # what was shown since the savepoint comes again
        story.folder = f"/checkpoints-{story.savepoints}"
        story.restore = path
        self.machine.note(f"{self.process.number} wrote savepoint {epoch} in {path}")

    def _judge_error(self, error: BaseException) -> None:
        """Let errors pass that may come; raise all others."""
        for one in leaves(error):
            if self.story.restore is not None and "already holds checkpoints" in str(one):
                # A former life brought the savepoint in: from now on the job goes on from there.
                self.story.restore = None
                continue
            if isinstance(one, AssertionError):
                raise error
            causes = self._causes(one)
            if any(isinstance(cause, AssertionError) for cause in causes):
                raise error
            expected = isinstance(one, FlowrtError | DiedError | InjectedError)
            if self.process.alive and not expected:
                raise error
            if self.process.alive and not self._may_fail():
                raise error
        self.state = f"failed: {error}"

    def _causes(self, error: BaseException) -> list[BaseException]:
        causes = []
        cause: BaseException | None = error
        while cause is not None:
            causes.append(cause)
            cause = cause.__cause__ or cause.__context__
        return causes

    def _may_fail(self) -> bool:
        """Whether an error is nobody's fault: it was injected, or the folder was taken over."""
        return self.process.failed or self.ending == "hand over" or self.take_over

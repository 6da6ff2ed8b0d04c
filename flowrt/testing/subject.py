"""An operator on the bench: its chain, its state and its snapshots, for one subtask or several."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast

from flowrt.contract.elements import MAX_TIMESTAMP, MIN_TIMESTAMP, Idle, Records, Watermark
from flowrt.contract.errors import ConfigError
from flowrt.contract.on_error import OnError
from flowrt.contract.operator import Context, CoOperator, Operator
from flowrt.contract.snapshot import Block, Frozen, StateFile
from flowrt.contract.state import BroadcastState, group_range, owner_of_group
from flowrt.contract.steps import Connect, Fold, KeyBy, MapAsync, Process, Step
from flowrt.contract.world import World
from flowrt.dataflow.chains.chain import Chain, Cut
from flowrt.dataflow.chains.judge import Judge
from flowrt.dataflow.chains.part import StepSetup
from flowrt.dataflow.channels.inputs import WatermarkMinimum
from flowrt.graph.check import declared_states
from flowrt.state.broadcast import BroadcastStates
from flowrt.state.key_groups import key_group
from flowrt.state.memory import MemoryBackend
from flowrt.testing.asking import Asking
from flowrt.testing.laws import LawBroken, through_a_snapshot
from flowrt.testing.script import END, IDLE, NO_KEY, Record, ScriptElement, Side

Subject: TypeAlias = (
    Step | Operator[Any, Any] | type[Operator[Any, Any]] | Callable[..., Any] | Sequence[Any]
)
"""What can be put on the bench.

A step, an `Operator` (instance or class), a function `fn(value, ctx)`, plain or coroutine, a
factory without arguments that makes one of these, or a sequence of them.
"""


class FunctionOperator(Operator[Any, Any]):
    """A function `fn(value, ctx)`, plain or coroutine, as an operator."""

    def __init__(self, fn: Callable[[Any, Context], Any]) -> None:
        self.process = fn  # type: ignore[method-assign, assignment]


def steps_of(subject: Subject) -> list[Step]:
    """Return fresh steps for a subject; `ConfigError` for what is none."""
    if isinstance(subject, Step):
        return [subject]
    if isinstance(subject, Operator):
        return [_step_of(lambda: deepcopy(subject), subject)]
    if isinstance(subject, type) and issubclass(subject, Operator):
        return [_step_of(subject, subject())]
    if isinstance(subject, Sequence) and not isinstance(subject, str):
        return [step for part in subject for step in steps_of(part)]
    if callable(subject) and _takes(subject, 2):
        return [Process(lambda: FunctionOperator(subject))]
    if callable(subject) and _takes(subject, 0):
        made: Any = subject()
        # Called again for each instance: what a factory makes must not be shared.
        return (
            [_step_of(cast(Callable[[], Operator[Any, Any]], subject), made)]
            if isinstance(made, Operator)
            else steps_of(made)
        )
    raise ConfigError(
        f"{subject!r} is nothing that can be driven: pass an Operator, a function of (value, ctx), "
        "a step such as flowrt.operators.map.map(fn), or a factory of one"
    )


def _step_of(make: Callable[[], Any], operator: Operator[Any, Any]) -> Step:
    if not isinstance(operator, CoOperator):
        return Process(make)
    return Connect(make, any(isinstance(s, BroadcastState) for s in declared_states(operator)))


def is_broadcast(steps: Sequence[Step]) -> bool:
    """Say whether each subtask gets all records of the second input."""
    return bool(steps) and isinstance(steps[0], Connect) and steps[0].broadcast


def _takes(fn: Callable[..., Any], arguments: int) -> bool:
    try:
        inspect.signature(fn).bind(*[None] * arguments)
    except (TypeError, ValueError):
        return False
    return True


@dataclass(slots=True)
class Part:
    """What one subtask of one step left in a snapshot."""

    blocks: list[Block]
    data: Any
    watermark: int | None


@dataclass(slots=True)
class Snapshot:
    """A snapshot taken in a script, to go on from: `drive(..., restore=snapshot)`."""

    parts: dict[str, list[Part]] = field(default_factory=dict)


class _EveryTag(frozenset[str]):
    """Holds every tag there is: on the bench all side outputs are taken."""

    def __contains__(self, tag: object) -> bool:
        return True


_EVERY_TAG: Final = _EveryTag({"all"})


class _NoFiles:
    """Stands where a task writes its state to files; on the bench blocks stay in memory."""

    async def write(self, epoch: int, frozen: Frozen | None) -> list[StateFile]:
        return []


class Bench:
    """Runs the subtasks of a line of steps and collects in `out` what they send.

    The calls of a `map_async` are made at once, or with `late` all that are in flight together,
    after that many more elements came in, and answered last first.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        keyed: bool,
        parallelism: int,
        world: World,
        late: int = 0,
        on_error: OnError | None = None,
    ) -> None:
        self.out: list[ScriptElement] = []
        self.on_error = on_error or OnError()
        self.parallelism = parallelism
        self._late = late
        self._unanswered = 0
        self._told = MIN_TIMESTAMP
        self._subject = subject
        self._keyed = keyed
        self._world = world
        self._lines: list[_Line] = []
        self._turn = 0
        self._ending = False
        self._opening = False
        self._idle = False
        self._watermarks = WatermarkMinimum(parallelism)

    # ------------------------------------------------------------------ life

    async def open(self, snapshot: Snapshot | None = None) -> None:
        """Make and open all subtasks, from a snapshot if there is one."""
        self._watermarks = WatermarkMinimum(self.parallelism, self._watermarks.current)
        self._opening = True
        for subtask in range(self.parallelism):
            line = _Line(self, subtask, self._subject, self._keyed, self._world, snapshot)
            self._lines.append(line)
            await line.chain.open()
        self._opening = False
        await self._ring()

    async def close(self) -> None:
        """Close all subtasks."""
        while self._lines:
            await self._lines.pop().chain.close()

    async def restart(self, parallelism: int | None = None) -> None:
        """Snapshot, lose everything else, go on at the same or another parallelism."""
        snapshot = self.snapshot()
        self.settle()
        await self.close()
        former, self.parallelism = self.parallelism, parallelism or self.parallelism
        await self.open(snapshot)
        if self._late and self.parallelism != former:
            for line in self._lines:
                line.tell_again(self._told)

    # ------------------------------------------------------------------ what comes in

    async def run(self, batch: Sequence[Record]) -> None:
        """Take records as one run."""
        if not batch:
            return
        right = batch[0].right
        if right and is_broadcast(steps_of(self._subject)):
            for line in self._lines:
                await line.take(_run_of(batch, keyed=False), right=True)
        elif self._keyed:
            for subtask, line in enumerate(self._lines):
                mine = [one for one in batch if self._owner(one.key) == subtask]
                if mine:
                    await line.take(_run_of(mine, keyed=True), right=right)
        else:
            line = self._lines[self._turn % self.parallelism]
            await line.take(_run_of(batch, keyed=False), right=right)
            self._turn = (self._turn + 1) % self.parallelism
        await self._came()

    async def advance(self, watermark: int) -> None:
        """Take a watermark."""
        self._told = watermark
        for line in self._lines:
            await line.take(Watermark(watermark))
        await self._came()

    async def end(self) -> None:
        """Let event time end."""
        self._ending = True
        await self.advance(MAX_TIMESTAMP)
        await self.answer()
        self.out.append(END)

    async def rest(self) -> None:
        """Hear that the input is idle."""
        for line in self._lines:
            await line.take(IDLE)
        await self._came()

    async def answer(self) -> None:
        """Make the calls that are in flight, and let all leave."""
        self._unanswered = 0
        for line in self._lines:
            if line.asking is not None:
                await line.asking.answer(backwards=self._late > 0)
        await self._ring()

    async def move_clock(self, timestamp: int) -> None:
        """Move a manual clock, and ring what is due."""
        move = getattr(self._world.clock, "set_to", None)
        if move is None:
            raise ConfigError("processing_time(...) needs a world with a ManualClock")
        move(timestamp)
        await self._ring()

    def snapshot(self) -> Snapshot:
        """Cut all subtasks; state is encoded when the next cut is made, or by `settle`."""
        self.settle()
        snapshot = Snapshot()
        for line in self._lines:
            line.cut(snapshot)
        return snapshot

    def settle(self) -> None:
        """Encode what the last cut froze; the stream may have gone on since."""
        for line in self._lines:
            line.settle()

    def failed_records(self) -> int:
        """Count the records that the operator failed at, and that were passed over."""
        judges = [judge for line in self._lines for judge in line.judges()]
        return sum(judge.failed_records for judge in judges)

    async def _came(self) -> None:
        self._unanswered += 1
        if self._unanswered > self._late:
            await self.answer()
        else:
            await self._ring()

    async def _ring(self) -> None:
        for line in self._lines:
            while (
                due := line.chain.next_alarm()
            ) is not None and due <= self._world.clock.now_ms():
                await line.chain.ring()

    def _owner(self, key: Hashable) -> int:
        return owner_of_group(key_group(key), self.parallelism)

    # ------------------------------------------------------------------ what comes out

    def take_watermark(self, subtask: int, timestamp: int) -> None:
        """Hear a watermark from a subtask."""
        if self._ending and timestamp == MAX_TIMESTAMP:
            return
        # One subtask alone is shown as it is: a watermark that goes back must be seen. What is told
        # again after a restart is for those that were restarted too, and a script never is.
        least = self._watermarks.advance(subtask, timestamp)
        shown = timestamp if self.parallelism == 1 and not self._opening else least
        if shown is not None:
            self._idle = False
            self.out.append(Watermark(shown))

    def take_idle(self, subtask: int) -> None:
        """Hear from a subtask that nothing comes for now."""
        least = self._watermarks.rest(subtask)
        if self._watermarks.idle:
            if not (self._opening and self._idle):
                self.out.append(IDLE)
            self._idle = True
        elif least is not None:
            self._idle = False
            self.out.append(Watermark(least))

    def take(self, elements: Iterable[Record | Side]) -> None:
        """Take records from a subtask."""
        before = len(self.out)
        self.out += elements
        self._idle = self._idle and len(self.out) == before


class _Line:
    """One subtask: a chain, and what a snapshot needs of it."""

    def __init__(
        self,
        bench: Bench,
        subtask: int,
        subject: Subject,
        keyed: bool,
        world: World,
        snapshot: Snapshot | None,
    ) -> None:
        self._bench = bench
        self._subtask = subtask
        self._blocks: dict[str, list[Block]] = {}
        self._pending: list[tuple[Cut, Part]] = []
        self.asking: Asking | None = None
        groups = group_range(subtask, bench.parallelism)
        first: MapAsync | None = None
        setups = []
        steps = steps_of(subject)
        self._has_right = bool(steps) and isinstance(steps[0], Connect)
        for number, step in enumerate(steps, 1):
            if isinstance(step, Connect) and number > 1:
                raise ConfigError(
                    "an operator of two inputs begins a task of its own: drive the steps before it "
                    "without it"
                )
            if isinstance(step, MapAsync) and number == 1:
                first = step
            else:
                parts = snapshot.parts.get(f"step-{number}", []) if snapshot is not None else []
                setups.append(self._setup(f"step-{number}", step, keyed, parts, groups))
            keyed = isinstance(step, KeyBy)
        self.chain = Chain(
            setups, self, world=world, subtask=subtask, parallelism=bench.parallelism
        )
        if first is not None:
            judge = None
            if not bench.on_error.fails_at_once:
                judge = Judge("step-1", bench.on_error.after_tries(), world, self.emit_side)
            self.asking = Asking("step-1", first, world, self.chain, judge)
            parts = snapshot.parts.get("step-1", []) if snapshot is not None else []
            self.asking.restore([part.data for part in parts], subtask, bench.parallelism)

    def _setup(
        self, id: str, step: Step, keyed: bool, parts: list[Part], groups: range
    ) -> StepSetup:
        if isinstance(step, MapAsync):
            raise ConfigError(
                "map_async begins a task of its own: drive the steps before it without it"
            )
        if isinstance(step, Fold) and not keyed:
            raise ConfigError(
                "the step keeps state for each key: pass key=..., a function from a value to its "
                "key, or give the records keys"
            )
        watermarks = [part.watermark for part in parts if part.watermark is not None]
        setup = StepSetup(
            id,
            step,
            keyed=keyed,
            restored=[part.data for part in parts if part.data is not None],
            watermark=min(watermarks, default=MIN_TIMESTAMP),
            taken_tags=_EVERY_TAG,
            on_error=self._bench.on_error,
            check_key=key_group,
        )
        if isinstance(step, Connect) and step.broadcast:
            setup.broadcast = BroadcastStates(id)
        if keyed and isinstance(step, Fold | Process | Connect):
            mine = [block for part in parts for block in part.blocks if block.group in groups]
            self._blocks[id] = mine
            setup.backend = MemoryBackend(id)
            setup.backend.load(mine)
            setup.writer = _NoFiles()
        return setup

    async def take(self, element: Records | Watermark | Idle, *, right: bool = False) -> None:
        """Take what comes in; `right`: records of the second input."""
        if right and not self._has_right:
            raise ConfigError("right(...) is for an operator of two inputs, and this one has one")
        if self.asking is not None:
            self.asking.take(element)
            return
        match element:
            case Records():
                await (self.chain.run_right(element) if right else self.chain.run(element))
            case Watermark(timestamp):
                await self.chain.advance(timestamp)
            case _:
                self.chain.rest()

    def judges(self) -> list[Judge]:
        """Return those that decide about failing records."""
        own = None if self.asking is None else self.asking.judge
        return self.chain.judges() if own is None else [own, *self.chain.judges()]

    def tell_again(self, watermark: int) -> None:
        """Tell a watermark that records in flight were restored without."""
        if self.asking is not None and watermark != MIN_TIMESTAMP:
            self.asking.take(Watermark(watermark))

    def cut(self, snapshot: Snapshot) -> None:
        """Add this subtask's parts to a snapshot, to be filled by `settle`."""
        cuts = self.chain.cut() if self.asking is None else [self.asking.cut(), *self.chain.cut()]
        for cut in cuts:
            data = through_a_snapshot(cut.data, f"what {cut.id} returned from snapshot()")
            part = Part(self._blocks.get(cut.id, []), data, cut.watermark)
            snapshot.parts.setdefault(cut.id, []).append(part)
            self._pending.append((cut, part))

    def settle(self) -> None:
        """Encode what was frozen at the last cut."""
        pending, self._pending = self._pending, []
        for cut, part in pending:
            if cut.frozen is not None:
                new = [block for blocks in cut.frozen.encode() for block in blocks]
                part.blocks = self._blocks[cut.id] = [*part.blocks, *new]
            later = through_a_snapshot(cut.data, f"what {cut.id} returned from snapshot()")
            if later != part.data:
                raise LawBroken(
                    "what snapshot() returned does not change afterwards",
                    f"{cut.id}, subtask {self._subtask}",
                    f"  it was {part.data!r} and became {later!r}: return a copy",
                )

    # ------------------------------------------------------------------ see `Downstream`

    async def emit(self, records: Records) -> None:
        times = records.timestamps or [None] * len(records)
        keys = records.keys or [NO_KEY] * len(records)
        self._bench.take(map(Record, records.values, times, keys))

    async def emit_side(self, operator: str, tag: str, records: Records) -> None:
        times = records.timestamps or [None] * len(records)
        self._bench.take(Side(tag, v, t) for v, t in zip(records.values, times, strict=True))

    def watermark(self, timestamp: int) -> None:
        self._bench.take_watermark(self._subtask, timestamp)

    def idle(self) -> None:
        self._bench.take_idle(self._subtask)


def _run_of(batch: Sequence[Record], *, keyed: bool) -> Records:
    timestamps: list[int | None] | None = [one.timestamp for one in batch]
    if timestamps is not None and all(time is None for time in timestamps):
        timestamps = None
    keys = [one.key for one in batch] if keyed else None
    return Records([one.value for one in batch], timestamps, keys)

"""A record that an operator fails at leaves no trace: as if it had never come."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import anyio
from hypothesis import given
from hypothesis import strategies as st

from flowrt.contract.elements import Records
from flowrt.contract.on_error import DeadLetter, OnError
from flowrt.contract.operator import Context, CoOperator, Operator, OutputTag
from flowrt.contract.snapshot import Block
from flowrt.contract.state import (
    AggregatingState,
    BroadcastState,
    ListState,
    MapState,
    ReducingState,
    Ttl,
    ValueState,
)
from flowrt.contract.steps import Connect, Process
from flowrt.dataflow.chains.chain import Chain
from flowrt.dataflow.chains.part import StepSetup
from flowrt.state.broadcast import BroadcastStates
from flowrt.state.memory import MemoryBackend
from flowrt.testing.world import manual_world
from tests.dataflow.kit import Collected

NUMBERS = st.integers(0, 3)
SIDE = OutputTag[Any]("side")
BAD = OutputTag[DeadLetter]("bad")

Act = tuple[str, int, int]
THEMES = [
    "set forget mutable reduce unreduce add emit",
    "append extend relist unlist emit",
    "put put remove unmap emit",
    "event event unevent clock unclock emit",
    "set append put remove event unevent emit side untaken",
    "short brief brief unbrief short listed unshort emit put",
]


def elements_of(chance: Random) -> list[Any]:
    """Records, watermarks and freezes; the records do things of a kind, so that they meet."""
    # Drawn here, not by strategies: those seldom make records that have to do with each other.
    theme = chance.choice(THEMES).split()
    elements: list[Any] = []
    for _ in range(chance.randint(1, 50)):
        kind = chance.choice(["good"] * 4 + ["bad"] * 4 + ["watermark", "freeze"])
        if kind in ("good", "bad"):
            acts = [(chance.choice(theme), chance.randrange(4), chance.randrange(4))]
            acts += [
                (chance.choice(theme), chance.randrange(4), chance.randrange(4))
                for _ in range(chance.randrange(4))
            ]
            acts += [("raise", 0, 0)] if kind == "bad" else []
            elements.append(("record", chance.randrange(2), acts))
        else:
            elements.append((kind, chance.randint(1, 3), ()))
    return elements


class Acts(Operator[Any, Any]):
    """Does what its records say."""

    value = ValueState(int, default=0)
    mutable = ValueState(list[int])
    seen = ListState(int)
    named = MapState(int, int)
    total = ReducingState(lambda a, b: a + b, int)
    mean: AggregatingState[int, list[int], int] = AggregatingState(
        lambda: [0, 0], lambda a, v: [a[0] + v, a[1] + 1], sum, list[int]
    )

    short = ValueState(int, default=0, ttl=Ttl("20ms", time="event", refresh="read"))
    brief = MapState(int, int, ttl=Ttl("20ms", time="event", refresh="read"))
    listed = ListState(int, ttl=Ttl("30ms", time="event"))

    def process(self, value: list[Act], ctx: Context) -> None:
        for act in value:
            self.act(act, ctx)

    def act(self, act: Act, ctx: Context) -> None:
        kind, a, b = act
        match kind:
            case "set":
                self.value.set(self.value.get() + a)
            case "forget":
                self.value.clear()
            case "mutable":
                self.mutable.set([*(self.mutable.get() or ()), a])
            case "append":
                self.seen.add(a)
            case "extend":
                self.seen.extend([a, b])
            case "relist":
                self.seen.set([a, b])
            case "unlist":
                self.seen.clear()
            case "put":
                self.named.put(a, b)
            case "remove":
                self.named.remove(a)
            case "unmap":
                self.named.clear()
            case "reduce":
                self.total.add(a)
            case "unreduce":
                self.total.clear()
            case "add":
                self.mean.add(a)
            case "short":
                self.short.set(self.short.get() + a)
            case "unshort":
                self.short.clear()
            case "brief":
                self.brief.put(a, b)
            case "unbrief":
                self.brief.remove(a)
            case "listed":
                self.listed.add(a)
            case "event":
                ctx.timers.register_event_time(10 * a + 10)
            case "unevent":
                ctx.timers.delete_event_time(10 * a + 10)
            case "clock":
                ctx.timers.register_processing_time(10**15 + a)
            case "unclock":
                ctx.timers.delete_processing_time(10**15 + a)
            case "emit":
                ctx.emit(self.everything(ctx), a)
            case "side":
                ctx.side(SIDE, a)
            case "untaken":
                ctx.side(OutputTag[int]("untaken"), a)
            case "raise":
                raise ValueError(a)

    def everything(self, ctx: Context) -> Any:
        return (
            ctx.key,
            self.value.get(),
            self.mutable.get(),
            self.seen.get(),
            list(self.named.items()),
            self.total.get(),
            self.mean.get(),
            self.short.get(),
            list(self.brief.items()),
            self.listed.get(),
        )

    def on_timer(self, timestamp: int, ctx: Context) -> None:
        """The timer at 20 does much, and fails."""
        for act in ("set", "put", "remove", "append", "emit"):
            self.act((act, 1, timestamp), ctx)
        ctx.timers.register_event_time(timestamp + 30)
        if timestamp % 50 == 20:
            raise ValueError("timer")


class Careful(Acts):
    """Does nothing at the timers that fail."""

    def on_timer(self, timestamp: int, ctx: Context) -> None:
        if timestamp % 50 != 20:
            super().on_timer(timestamp, ctx)


class Life:
    """A chain of one operator, and all that came out of it and its snapshots."""

    def __init__(self, operator: type[Acts], on_error: OnError) -> None:
        self.out = Collected()
        self.backend = MemoryBackend("op")
        self.blocks: list[Block] = []
        self.snapshots: list[Any] = []
        setup = StepSetup(
            "op",
            Process(operator),
            keyed=True,
            backend=self.backend,
            taken_tags=frozenset({"side", "bad"}),
            on_error=on_error,
        )
        self.chain = Chain([setup], self.out, world=manual_world(), subtask=0, parallelism=1)

    async def live(self, elements: list[Any]) -> None:
        await self.chain.open()
        watermark = 0
        for kind, number, acts in elements:
            if kind == "record":
                await self.chain.run(Records([acts], [5], [number]))
            elif kind == "watermark":
                watermark += 10 * number
                await self.chain.advance(watermark)
            else:
                self.freeze()
        self.freeze()
        await self.chain.close()

    def freeze(self) -> None:
        frozen = self.backend.freeze()
        new = [b for blocks in frozen.encode() for b in blocks] if frozen is not None else []
        self.blocks += new
        # What this snapshot wrote, in how many entries, and what a restore would find.
        written = sorted((block.state, block.group, block.entries) for block in new)
        self.snapshots.append((written, dump(self.blocks)))

    @property
    def story(self) -> list[Any]:
        return [entry for entry in self.out.story if entry[0] != "side bad"]


def dump(blocks: list[Block]) -> list[Any]:
    """All that is in a snapshot, in the order in which an operator would see it."""
    backend = MemoryBackend("op")
    backend.load(blocks)
    return [*restored(backend)]


def restored(backend: MemoryBackend) -> Iterator[Any]:
    class Scope:
        key: Any = None
        timestamp = 0
        watermark = 0
        world = manual_world()

    scope = Scope()
    acts = Acts()
    names = ("value", "mutable", "seen", "named", "total", "mean", "short", "brief", "listed")
    for name in names:
        acts.__dict__[name] = backend.handle(vars(Acts)[name], scope)
    timers = [
        backend.handle(MapState(int, int, name=f"timers.{kind}"), scope)
        for kind in ("event", "processing")
    ]
    for key in range(3):
        scope.key = key
        yield acts.everything(scope)  # type: ignore[arg-type]
        yield [sorted(handle.items()) for handle in timers]


def fails(element: Any) -> bool:
    return element[0] == "record" and any(kind == "raise" for kind, _, _ in element[2])


@given(st.randoms(use_true_random=True), st.booleans())
def test_state_timers_snapshots_and_output_are_as_if_it_had_never_come(
    chance: Random, has_letters: bool
) -> None:
    elements = elements_of(chance)
    judged = Life(Acts, OnError.dead_letter(BAD) if has_letters else OnError.skip())
    without = Life(Careful, OnError.fail())

    anyio.run(judged.live, elements)
    anyio.run(without.live, [one for one in elements if not fails(one)])

    assert judged.story == without.story
    assert judged.snapshots == without.snapshots
    assert judged.chain.dropped() == without.chain.dropped()


class Rules(CoOperator[Any, Any, Any]):
    """Does to broadcast state what its second input says."""

    rules = BroadcastState(int, int)

    def process_left(self, value: Any, ctx: Context) -> None:
        ctx.emit(list(self.rules.items()))

    def process_right(self, value: list[Act], ctx: Context) -> None:
        for kind, a, b in value:
            match kind:
                case "put":
                    self.rules.put(a, b)
                case "remove":
                    self.rules.remove(a)
                case "clear":
                    self.rules.clear()
                case "replace":
                    self.rules.replace({a: b, b: a})
                case _:
                    raise ValueError


BROADCAST_ACTS = st.tuples(
    st.sampled_from(["put", "put", "remove", "clear", "replace", "raise"]), NUMBERS, NUMBERS
)


async def _rules(values: list[list[Act]], on_error: OnError) -> tuple[Any, Any]:
    out, broadcast = Collected(), BroadcastStates("op")
    setup = StepSetup("op", Connect(Rules, True), broadcast=broadcast, on_error=on_error)
    chain = Chain([setup], out, world=manual_world(), subtask=0, parallelism=1)
    await chain.open()
    for value in values:
        await chain.run_right(Records([value]))
        await chain.run(Records([None]))
    return out.values, broadcast.snapshot()


@given(st.lists(st.lists(BROADCAST_ACTS, max_size=4), max_size=8))
def test_broadcast_state_is_as_if_it_had_never_come(values: list[list[Act]]) -> None:
    judged, snapshot = anyio.run(_rules, values, OnError.skip())
    fine = [value for value in values if all(kind != "raise" for kind, _, _ in value)]
    expected, expected_snapshot = anyio.run(_rules, fine, OnError.fail())

    kept = [
        seen
        for seen, value in zip(judged, values, strict=True)
        if all(kind != "raise" for kind, _, _ in value)
    ]
    assert kept == expected
    assert snapshot == expected_snapshot

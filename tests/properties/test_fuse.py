"""Any line of steps does what a naive interpreter does, however the input is cut into runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from flowrt.contract.elements import Records
from flowrt.contract.operator import Context, OutputTag
from flowrt.contract.steps import Filter, FlatMap, Fold, KeyBy, Map, Step
from flowrt.dataflow.chains.part import StepSetup
from tests.dataflow.kit import Collected, chain_of, process, setup

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Record:
    value: Any
    at: int | None = None
    key: Any = None


# ------------------------------------------------------------------------- functions of the steps


def size(value: Any) -> int:
    """A number for any value that comes up here, the same in every run."""
    if isinstance(value, tuple):
        return sum(map(size, value))
    return int(value or 0)


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "add": lambda v: size(v) + 1,
    "wrap": lambda v: (v,),
    "double": lambda v: size(v) * 2,
}
TESTS: dict[str, Callable[[Any], Any]] = {
    "even": lambda v: size(v) % 2 == 0,
    "truthy": lambda v: size(v) % 3,
    "none": lambda v: False,
}
MANY: dict[str, Callable[[Any], Any]] = {
    "twice": lambda v: [v, v],
    "count": lambda v: (size(v) + n for n in range(size(v) % 4)),
    "nothing": lambda v: (),
}
KEYS: dict[str, Callable[[Any], Any]] = {
    "parity": lambda v: size(v) % 2,
    "text": lambda v: str(size(v) % 3),
}


def tell(value: Any, emit: Callable[..., None], aside: Callable[..., None], key: Any) -> None:
    """What a process step does: emits 0 to 2 values, some at times of their own."""
    number = size(value)
    if number % 5 == 1:
        aside(number)
    if number % 3:
        emit((value, key))
    if number % 4 == 0:
        emit(value, number)


@dataclass(frozen=True)
class Plan:
    """One step: its kind, its function, whether the function is a coroutine function."""

    kind: str
    name: str = ""
    waits: bool = False
    keyed: bool = False


def coroutine(fn: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    async def waits(*arguments: Any) -> Any:
        await checkpoint()
        return fn(*arguments)

    return waits


def step(plan: Plan, index: int) -> StepSetup:
    """The step as the runtime gets it."""

    def made(function: Callable[..., Any]) -> Any:
        return coroutine(function) if plan.waits else function

    made_step: Step
    match plan.kind:
        case "map":
            made_step = Map(made(FUNCTIONS[plan.name]))
        case "filter":
            made_step = Filter(made(TESTS[plan.name]))
        case "flat_map":
            made_step = FlatMap(made(MANY[plan.name]))
        case "key_by":
            made_step = KeyBy(KEYS[plan.name])
        case "fold":
            made_step = Fold(size, lambda a, v: a + size(v), type=int if plan.waits else None)
        case _:

            def run(value: Any, ctx: Context) -> None:
                aside = OutputTag[int]("aside")
                key = ctx.key if plan.keyed else None
                tell(value, ctx.emit, lambda v: ctx.side(aside, v), key)

            made_step = process(made(run))
    return setup(str(index), made_step, keyed=plan.keyed, taken_tags=frozenset({"aside"}))


def interpret(plans: list[Plan], records: list[Record]) -> tuple[list[Record], list[Any]]:
    """Do step by step, record by record, what the steps say."""
    asides: list[Any] = []

    def through(plan: Plan, record: Record, state: dict[Any, int]) -> Iterator[Record]:
        value, at, key = record.value, record.at, record.key
        match plan.kind:
            case "map":
                yield Record(FUNCTIONS[plan.name](value), at)
            case "filter":
                if TESTS[plan.name](value):
                    yield Record(value, at)
            case "flat_map":
                for each in MANY[plan.name](value):
                    yield Record(each, at)
            case "key_by":
                yield Record(value, at, KEYS[plan.name](value))
            case "fold":
                state[key] = state.get(key, 0) + size(value)
                yield Record((key, state[key]), at)
            case _:
                out: list[Record] = []

                def emit(v: Any, t: int | None = None) -> None:
                    out.append(Record(v, at if t is None else t))

                tell(value, emit, lambda v: asides.append((v, at)), key if plan.keyed else None)
                yield from out

    for plan in plans:
        state: dict[Any, int] = {}
        records = [out for record in records for out in through(plan, record, state)]
    return records, asides


# ------------------------------------------------------------------------------ random lines


def named(kind: str, names: dict[str, Any]) -> st.SearchStrategy[list[Plan]]:
    waits = st.booleans() if kind != "key_by" else st.just(False)
    return st.builds(lambda n, w: [Plan(kind, n, w)], st.sampled_from(sorted(names)), waits)


KEYED = st.builds(
    lambda name, kind, waits: [
        Plan("key_by", name),
        Plan(kind, waits=waits, keyed=True),
    ],
    st.sampled_from(sorted(KEYS)),
    st.sampled_from(["fold", "process"]),
    st.booleans(),
)
LINES = st.lists(
    st.one_of(
        named("map", FUNCTIONS),
        named("filter", TESTS),
        named("flat_map", MANY),
        named("key_by", KEYS),
        st.booleans().map(lambda waits: [Plan("process", waits=waits)]),
        KEYED,
    ),
    max_size=5,
).map(lambda parts: [plan for part in parts for plan in part])

VALUES = st.lists(st.integers(0, 20), max_size=12)


@given(LINES, VALUES, st.booleans(), st.data())
async def test_a_line_does_what_an_interpreter_does(
    plans: list[Plan], values: list[int], timed: bool, data: st.DataObject
) -> None:
    times = [data.draw(st.none() | st.integers(-5, 5)) for _ in values] if timed else None
    given = [Record(v, t) for v, t in zip(values, times or [None] * len(values), strict=True)]

    out = Collected()
    chain = chain_of(out, *(step(plan, index) for index, plan in enumerate(plans)))
    await chain.open()
    at = 0
    while at < len(values):
        end = data.draw(st.integers(at + 1, len(values)))
        await chain.run(Records(values[at:end], None if times is None else times[at:end]))
        at = end

    records, asides = interpret(plans, given)
    got = [Record(*entry[1:]) for entry in out.story if entry[0] == "record"]
    assert got == records
    # Asides of several steps mix as the records go through; each step's are in order.
    told = [(entry[2], entry[3]) for entry in out.story if entry[0] == "side aside"]
    assert sorted(told, key=repr) == sorted(asides, key=repr)


@given(LINES, VALUES)
async def test_runs_that_bring_keys_are_read_as_they_are(
    plans: list[Plan], values: list[int]
) -> None:
    keys = [KEYS["text"](value) for value in values]
    plans = [Plan("process", keyed=True), *plans]
    given = [Record(v, None, k) for v, k in zip(values, keys, strict=True)]

    out = Collected()
    chain = chain_of(out, *(step(plan, index) for index, plan in enumerate(plans)))
    await chain.open()
    if values:
        await chain.run(Records(values[:], None, [*keys]))

    records, _ = interpret(plans, given)
    assert [Record(*entry[1:]) for entry in out.story if entry[0] == "record"] == records

"""The laws of operators, checked over one case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

from flowrt.contract.elements import MIN_TIMESTAMP, EndOfStream, Idle, Watermark
from flowrt.contract.on_error import OnError
from flowrt.contract.operator import Operator
from flowrt.contract.steps import AssignTimestamps, Connect, KeyBy, MapAsync, Process
from flowrt.contract.world import World
from flowrt.testing.drive import (
    KeyFunction,
    give,
    is_keyed,
    runs_of,
    time_for_tries,
    with_keys,
)
from flowrt.testing.laws import LawBroken, difference, same_multiset
from flowrt.testing.script import ProcessingTime, Record, ScriptElement, Side, check_script, show
from flowrt.testing.subject import Bench, Subject, is_broadcast, steps_of
from flowrt.testing.world import manual_world

Outputs: TypeAlias = list[list[ScriptElement]]
"""What came out at each run of the script that went in."""

AS_WRITTEN = "the script gives what is expected"
BATCHES = "records that come together give what they give one by one"
CUTS = "a snapshot changes nothing"
RESTARTS = "a new instance goes on from a snapshot as the old one would have"
INSTANCES = "several instances share the keys and give together what one gives"
RESCALED = "a snapshot can be restored at another parallelism"
WATERMARKS = "a watermark stays in its place among the records"
INPUT = "an operator leaves what it is given as it was"
TRACES = "a record that the operator fails at leaves no trace"
LATE = "answers may come late, and a snapshot may find any records in flight"


async def check_operator(
    make: Subject,
    given: Iterable[object],
    expect: Iterable[Any],
    *,
    key: KeyFunction | None = None,
    ordered: bool = True,
    on_error: OnError | None = None,
) -> None:
    """Check every law of operators over one case; `LawBroken` says which is broken, where and how.

    `make`, `given` and `key` are as for `drive`; `expect` is what comes out. The same case is run:
    as it is; with the records given in runs of each size; with a snapshot after each element; with
    a new instance that goes on from a snapshot, at each place, at all and at every second; on a
    keyed stream with two and three instances, and with their number changing at each restart; with
    a watermark put in at each place. A `map_async` is also run with answers that come late, last
    first, with a new instance at each place and their number changing.

    No step may change a record's value in place, for others have the same object: the readers of a
    stream, the next try, a dead letter. Values that cannot be copied, or are not equal to a copy of
    themselves, are let pass.

    With `on_error`, the policy of every step, records may fail that are passed over then, and the
    case is also run without them: all but dead letters must be the same.

    What an operator makes of a record that is broadcast comes from each instance.

    With `ordered=False` records may come in any order between two watermarks. The order between the
    main output and a side output is never compared, nor that between keys where there are several
    instances. The cost grows with the square of the script's length: a dozen elements tell as much
    as a thousand.
    """
    script = check_script(given)
    keyed = is_keyed(script, key)
    case = _Case(make, with_keys(script, key, make) if keyed else script, keyed, on_error)
    compare = _compare if ordered else _compare_unordered

    usual = await case.run(Variant())
    compare(AS_WRITTEN, "the whole script, record by record", list(expect), _flat(usual))
    await _check_traces(case, compare, _flat(usual))
    everywhere = case.broadcast_places()
    for variant in variants(case):
        expected = variant.expected(usual)
        got = await case.checked_run(variant)
        if variant.late:
            variant.compare_late(expected, got, ordered=ordered)
        elif variant.several:
            for want, have, where in zip(expected, got, case.places(), strict=True):
                if where in everywhere:
                    # Each instance sends what it makes of such a record.
                    want = want * (len(have) // max(len(want), 1))
                _compare_unordered(variant.law, f"{variant.where}, {where}", want, have)
        else:
            compare(variant.law, variant.where, _flat(expected), _flat(got))


async def _check_traces(
    case: _Case, compare: Callable[..., None], usual: list[ScriptElement]
) -> None:
    script = [one for place, one in enumerate(case.script) if place not in case.failed]
    # What makes watermarks has seen a record that a step behind it fails at.
    makes_time = any(isinstance(step, AssignTimestamps) for step in steps_of(case.make))
    if not case.failed or makes_time:
        return
    tag = None if case.on_error is None or case.on_error.tag is None else case.on_error.tag.name
    kept = [one for one in usual if not (isinstance(one, Side) and one.tag == tag)]
    without = await case.checked_run(Variant(TRACES, "run without the records", script=script))
    compare(TRACES, "run without the records that it fails at", _flat(without), kept)


def _as_it_was(usual: Outputs) -> Outputs:
    return usual


@dataclass(frozen=True)
class Variant:
    """One way to run the case, and what it must give, made from what the usual way gave."""

    law: str = AS_WRITTEN
    where: str = ""
    batch: int = 1
    cuts: frozenset[int] = frozenset()
    """After how many elements snapshots are taken."""
    restarts: Mapping[int, int] = field(default_factory=dict)
    """After how many elements a new start comes, and at which parallelism."""
    parallelism: int = 1
    script: Sequence[ScriptElement] | None = None
    expected: Callable[[Outputs], Outputs] = _as_it_was
    late: int = 0
    """How many elements more come in before calls are answered."""

    @property
    def several(self) -> bool:
        """Whether there is more than one instance at any time."""
        return max([self.parallelism, *self.restarts.values()]) > 1

    def compare_late(self, expected: Outputs, got: Outputs, *, ordered: bool) -> None:
        """Compare what came out in all: rests and watermarks may be overtaken by later ones."""
        want, have = _flat(expected), _flat(got)
        if self.several:
            # Each instance has watermarks of its own in flight, and after a change gets them anew.
            want, have = _records_of(want), _records_of(have)
        compare = _compare if ordered and not self.several else _compare_unordered
        compare(self.law, self.where, _lasting(want), _lasting(have))


class _Case:
    def __init__(
        self,
        make: Subject,
        script: Sequence[ScriptElement],
        keyed: bool,
        on_error: OnError | None,
    ) -> None:
        self.make = make
        self.on_error = on_error
        self.failed: set[int] = set()
        """The places of the records that were passed over, in the script as it is."""
        self.script = script
        self.keyed = keyed
        self.cuts = range(len(script) + (not script or not isinstance(script[-1], EndOfStream)))

    async def checked_run(self, variant: Variant) -> Outputs:
        try:
            return await self.run(variant)
        except LawBroken:
            raise
        except Exception as error:
            raised = f"  it raised {type(error).__name__}: {error}"
            raise LawBroken(variant.law, variant.where, raised) from error

    async def run(self, variant: Variant) -> Outputs:
        world = manual_world()
        async with time_for_tries(world, self.on_error):
            return await self._run(variant, world)

    async def _run(self, variant: Variant, world: World) -> Outputs:
        script = self.script if variant.script is None else variant.script
        bench = Bench(
            self.make,
            keyed=self.keyed,
            parallelism=variant.parallelism,
            world=world,
            late=variant.late,
            on_error=self.on_error,
        )
        outputs: Outputs = []
        done = 0
        try:
            await bench.open()
            await self._between(bench, variant, done)
            for run in runs_of(script, variant.batch):
                before = bench.failed_records()
                copy = None if variant.where else _copy_of(run[0])
                await give(bench, run)
                if not variant.where and isinstance(run[0], Record):
                    self.failed |= {done} if bench.failed_records() > before else set()
                    _check_unchanged(copy, run[0], f"element {done + 1} of {len(script)}")
                done += len(run)
                await self._between(bench, variant, done)
                outputs.append(bench.out)
                bench.out = []
            bench.settle()
            if variant.late:
                await bench.answer()
                outputs.append(bench.out)
        finally:
            await bench.close()
        return outputs

    async def _between(self, bench: Bench, variant: Variant, done: int) -> None:
        if done in variant.cuts:
            bench.snapshot()
        if done in variant.restarts:
            await bench.restart(variant.restarts[done])

    def place(self, done: int) -> str:
        """Say where in the script a cut lies."""
        if not done:
            return "before the first element"
        return f"after {show(self.script[done - 1])}, element {done} of {len(self.script)}"

    def broadcast_places(self) -> set[str]:
        """Say where in the script records come that each instance gets."""
        if not is_broadcast(steps_of(self.make)):
            return set()
        places = zip(self.script, self.places(), strict=True)
        return {place for one, place in places if isinstance(one, Record) and one.right}

    def places(self) -> list[str]:
        return [
            f"at {show(element)}, element {number} of {len(self.script)}"
            for number, element in enumerate(self.script, 1)
        ]


def _copy_of(element: ScriptElement) -> Record | None:
    """Return a record with a copy of its value; None where that would tell nothing."""
    if not isinstance(element, Record):
        return None
    try:
        copy = replace(element, value=deepcopy(element.value))
    except Exception:  # such as a lock, or a connection
        return None
    return copy if _is_equal(copy, element) else None


def _check_unchanged(copy: Record | None, given: Record, place: str) -> None:
    if copy is None or _is_equal(copy, given):
        return
    raise LawBroken(
        INPUT,
        f"at {show(copy)}, {place}",
        f"  it became {show(given)}: records are handed on and not copied, so make a new value "
        "and leave the one that was given",
    )


def _is_equal(one: Record, other: Record) -> bool:
    try:
        return one == other
    except Exception:  # such as arrays, which do not say yes or no
        return False


def variants(case: _Case) -> Iterator[Variant]:
    """All the ways to run a case, simple ones first: they name the place better."""
    yield from _batches(case)
    everywhere = frozenset(case.cuts)
    yield Variant(CUTS, "a snapshot after each element", cuts=everywhere)
    for done in case.cuts:
        yield Variant(RESTARTS, f"restarted {case.place(done)}", restarts={done: 1})
    for step, name in ((1, "each"), (2, "every second")):
        restarts = dict.fromkeys(case.cuts[::step], 1)
        yield Variant(RESTARTS, f"restarted after {name} element", restarts=restarts)
        yield Variant(
            RESTARTS,
            f"restarted after {name} element, with a snapshot after each",
            cuts=everywhere,
            restarts=restarts,
        )
    if case.keyed:
        yield from _instances(case)
    yield from _watermarks(case)
    yield from _late(case)


def _batches(case: _Case) -> Iterator[Variant]:
    longest = max((len(run) for run in runs_of(case.script, len(case.script) + 1)), default=0)
    for batch in range(2, longest + 1):
        sizes = [len(run) for run in runs_of(case.script, batch)]
        yield Variant(
            BATCHES,
            f"records in runs of up to {batch}",
            batch=batch,
            expected=partial(_together, sizes=sizes),
        )


def _together(usual: Outputs, sizes: Sequence[int]) -> Outputs:
    """What comes out when runs come as one: all records, then the last watermark they made."""
    joined: Outputs = []
    start = 0
    for size in sizes:
        out = _flat(usual[start : start + size])
        start += size
        if size > 1:
            made = [one for one in out if isinstance(one, Watermark)]
            out = [one for one in out if not isinstance(one, Watermark)] + made[-1:]
        joined.append(out)
    return joined


def _instances(case: _Case) -> Iterator[Variant]:
    for parallelism in (2, 3):
        yield Variant(INSTANCES, f"{parallelism} instances", parallelism=parallelism)
        restarts = dict.fromkeys(case.cuts, parallelism)
        where = f"{parallelism} instances, restarted after each element"
        yield Variant(RESTARTS, where, restarts=restarts, parallelism=parallelism)
    for done in case.cuts:
        for before, after in ((1, 2), (2, 1), (2, 3)):
            where = f"from {before} to {after} instances {case.place(done)}"
            yield Variant(RESCALED, where, restarts={done: after}, parallelism=before)
    changing = {done: number % 3 + 1 for number, done in enumerate(case.cuts, 1)}
    yield Variant(RESCALED, "1, 2, 3, 1, … instances after each element", restarts=changing)


def _watermarks(case: _Case) -> Iterator[Variant]:
    """Put in a watermark that makes no timer due, before any that the script has."""
    if any(_minds_watermarks(step) for step in steps_of(case.make)):
        return
    first = Watermark(MIN_TIMESTAMP + 1)
    for done in range(len(case.script)):
        if done and isinstance(case.script[done - 1], Watermark):
            return
        yield Variant(
            WATERMARKS,
            f"a watermark put in {case.place(done)}",
            script=[*case.script[:done], first, *case.script[done:]],
            expected=partial(_with_one_more, at=done, out=[first]),
        )


def _late(case: _Case) -> Iterator[Variant]:
    """Let calls be in flight at the cuts."""
    steps = steps_of(case.make)
    asks = any(isinstance(step, MapAsync) for step in steps)
    if not asks or any(isinstance(element, ProcessingTime) for element in case.script):
        return
    # Of several instances with keys each has its own: records would have to change over.
    alone = any(isinstance(step, KeyBy) for step in steps)
    never = len(case.script)
    for late in sorted({1, 2, never}):
        behind = "answers come last" if late == never else f"answers come late by {late}"
        yield Variant(LATE, behind, late=late)
        for done in case.cuts:
            where = f"{behind}, restarted {case.place(done)}"
            yield Variant(LATE, where, restarts={done: 1}, late=late)
        everywhere = dict.fromkeys(case.cuts, 1)
        where = f"{behind}, restarted after each element"
        yield Variant(LATE, where, restarts=everywhere, late=late)
        if alone:
            continue
        changing = {done: number % 3 + 1 for number, done in enumerate(case.cuts, 1)}
        where = f"{behind}, 1, 2, 3, 1, … instances after each element"
        yield Variant(LATE, where, restarts=changing, late=late)


def _with_one_more(usual: Outputs, at: int, out: list[ScriptElement]) -> Outputs:
    return [*usual[:at], out, *usual[at:]]


def _minds_watermarks(step: Any) -> bool:
    if isinstance(step, Process | Connect):
        return type(step.make()).on_watermark is not Operator.on_watermark
    return isinstance(step, AssignTimestamps)


# ------------------------------------------------------------------------------------ comparing


def _flat(outputs: Outputs) -> list[ScriptElement]:
    return [element for out in outputs for element in out]


def _records_of(out: list[ScriptElement]) -> list[ScriptElement]:
    return [element for element in out if isinstance(element, Record | Side)]


def _lasting(out: list[ScriptElement]) -> list[ScriptElement]:
    """Leave out rests, and watermarks with nothing but a watermark behind them."""
    awake = [element for element in out if not isinstance(element, Idle)]
    following = [*awake[1:], None]
    return [
        element
        for element, after in zip(awake, following, strict=True)
        if not (isinstance(element, Watermark) and isinstance(after, Watermark))
    ]


def _streams(out: Sequence[ScriptElement]) -> dict[str | None, list[ScriptElement]]:
    """Part the main output (None) and the side outputs; each has all that is not a record."""
    tags = {one.tag for one in out if isinstance(one, Side)}
    return {
        tag: [one for one in out if _tag_of(one) == tag or not isinstance(one, Record | Side)]
        for tag in [None, *sorted(tags)]
    }


def _tag_of(element: ScriptElement) -> str | None:
    return element.tag if isinstance(element, Side) else None


def _compare(law: str, where: str, expected: list[ScriptElement], got: list[ScriptElement]) -> None:
    if _streams(expected) != _streams(got):
        raise LawBroken(law, where, difference(expected, got))


def _compare_unordered(
    law: str, where: str, expected: list[ScriptElement], got: list[ScriptElement]
) -> None:
    want, have = _streams(expected), _streams(got)
    same = want.keys() == have.keys() and all(_alike(want[tag], have[tag]) for tag in want)
    if not same:
        raise LawBroken(law, where, difference(expected, got))


def _alike(expected: list[ScriptElement], got: list[ScriptElement]) -> bool:
    """Say whether the same records lie between the same watermarks."""
    want, have = _segments(expected), _segments(got)
    return len(want) == len(have) and all(map(same_multiset, want, have))


def _segments(out: list[ScriptElement]) -> list[list[ScriptElement]]:
    segments: list[list[ScriptElement]] = [[]]
    for element in out:
        if isinstance(element, Record | Side):
            segments[-1].append(element)
        else:
            segments += [[element], []]
    return segments

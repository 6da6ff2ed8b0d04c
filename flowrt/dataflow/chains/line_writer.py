"""Writes the text of a fused function: the loop a person would write, every step inline.

The text holds no data of the user's, only names that this module makes; what the names mean is
passed in beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flowrt.contract.failures import survivable
from flowrt.contract.snapshot import Table
from flowrt.contract.steps import (
    Connect,
    Filter,
    FlatMap,
    Fold,
    KeyBy,
    Map,
    Process,
    one,
    one_more,
)
from flowrt.dataflow.chains.part import Part, is_coroutine, waits_for
from flowrt.dataflow.channels.run_length import RUN_LIMIT


@dataclass(slots=True)
class _At:
    """Where the writer is: how deep, and in which variables value, timestamp and key are."""

    depth: int
    value: str = "v"
    timestamp: str = "None"
    key: str = "k"


class LineWriter:
    """Writes a fused function, line by line."""

    def __init__(
        self, parts: Sequence[Part], *, timestamps: bool, keys: bool, timed: bool = False
    ) -> None:
        steps = [part.step for part in parts]
        self.parts = parts
        self.keys = keys
        self.timed = timed
        self.fans_out = any(isinstance(step, FlatMap | Process | Connect) for step in steps)
        self.out_keys = bool(steps) and isinstance(steps[-1], KeyBy)
        self.out_timestamps = timestamps or any(
            isinstance(step, Process | Connect) for step in steps
        )
        # One for one, and sent in one go: the timestamps of the run are already the right list.
        one_for_one = all(isinstance(step, Map | KeyBy | Fold) for step in steps)
        stays = one_for_one and not any(waits_for(part) or part.judge for part in parts)
        self.pass_timestamps = timestamps and stays
        self.loop_timestamps = timestamps and not self.pass_timestamps
        self.prologue: list[str] = []
        self.lines: list[str] = []
        self.arguments: dict[str, Any] = {}
        self.plain: set[str] = set()
        """Those of the arguments that are users' functions whose results nobody awaits."""
        self.places: dict[int, tuple[int, str]] = {}

    def write(self) -> str:
        self.fresh(0, self.prologue.append)
        if self.timed:
            self.count_from_zero()
        self.loop()
        if self.timed:
            self.tell()
        names = "".join(f", {name}" for name in self.arguments)
        head = [f"def make(emit, Records, MISSING{names}):"]
        head.append("    async def fused(values, timestamps, keys):")
        head += [f"        {line}" for line in self.prologue]
        self.places = {line + len(head): place for line, place in self.places.items()}
        return "\n".join([*head, *self.lines, "    return fused", ""])

    def add(self, depth: int, line: str) -> None:
        self.lines.append("    " * (depth + 2) + line)

    def add_call(self, depth: int, line: str, index: int, at: _At) -> None:
        """Add a line in which a step's function may raise."""
        self.add(depth, line)
        self.places[len(self.lines)] = (index, at.value)

    # ------------------------------------------------------------------ the timed function

    def count_from_zero(self) -> None:
        # Bound when the function is made: the places are kept, the names are taken.
        self.arguments |= {"now": None, "note": None}
        self.prologue += [f"came{i} = spent{i} = 0" for i in range(len(self.parts) + 1)]
        self.prologue.append("since = 0")

    def tell(self) -> None:
        came = ", ".join(f"came{i}" for i in range(len(self.parts) + 1))
        spent = "".join(f"spent{i}, " for i in range(len(self.parts)))
        self.add(0, f"note(({came},), ({spent}))")

    def came(self, index: int, depth: int) -> None:
        """Count a record that comes to a step, or leaves the last."""
        if self.timed:
            self.add(depth, f"came{index} += 1")

    def begin(self, depth: int) -> None:
        """What went by until here belongs to no step."""
        # Written like that of a step, so that what it costs itself is always the same.
        self.spent(len(self.parts), depth)

    def spent(self, index: int, depth: int) -> None:
        """What went by since the last look at the clock belongs to a step."""
        if self.timed:
            self.add(depth, f"until = now(); spent{index} += until - since; since = until")

    def name(self, kind: str, index: int, meaning: Any) -> str:
        """Pass an object to the function and return the name under which it knows it."""
        name = f"{kind}{index}"
        self.arguments[name] = meaning
        return name

    # ------------------------------------------------------------------ the loop around the steps

    def loop(self) -> None:
        columns = ["values"] + ["timestamps"] * self.loop_timestamps + ["keys"] * self.keys
        names = ["v"] + ["t"] * self.loop_timestamps + ["k"] * self.keys
        over = columns[0] if len(columns) == 1 else f"zip({', '.join(columns)})"
        self.add(0, f"for {', '.join(names)} in {over}:")
        at = _At(1, timestamp="t" if self.loop_timestamps else "None")
        self.begin(at.depth)
        for index, part in enumerate(self.parts):
            if waits_for(part):
                # What is ready must not wait for a call that may take long.
                self.add(at.depth, "if out:")
                self.send(at.depth + 1)
            self.came(index, at.depth)
            at = self.step(index, part, at)
            if not isinstance(part.step, Filter | Process | Connect):
                # Those look at the clock before they say who goes on.
                self.spent(index, at.depth)
        self.push(at)
        self.add(0, "if out:")
        self.send(1, renew=False)

    def fresh(self, depth: int, add: Callable[[str], None]) -> None:
        """Start new output lists, with their append methods at hand."""
        indent = "    " * depth
        add(f"{indent}out = []; push = out.append")
        if self.out_timestamps and not self.pass_timestamps:
            add(f"{indent}out_t = []; push_t = out_t.append")
        if self.out_keys:
            add(f"{indent}out_k = []; push_k = out_k.append")

    def push(self, at: _At) -> None:
        self.came(len(self.parts), at.depth)
        self.add(at.depth, f"push({at.value})")
        if self.out_timestamps and not self.pass_timestamps:
            self.add(at.depth, f"push_t({at.timestamp})")
        if self.out_keys:
            self.add(at.depth, f"push_k({at.key})")
        if self.fans_out:
            self.add(at.depth, f"if len(out) >= {RUN_LIMIT}:")
            self.send(at.depth + 1)

    def send(self, depth: int, *, renew: bool = True) -> None:
        times = "None"
        if self.out_timestamps:
            times = "timestamps" if self.pass_timestamps else "out_t"
        keys = "out_k" if self.out_keys else "None"
        self.add(depth, f"await emit(Records(out, {times}, {keys}))")
        if renew:
            self.fresh(0, lambda line: self.add(depth, line))
            self.begin(depth)

    # ------------------------------------------------------------------ one step

    def step(self, index: int, part: Part, at: _At) -> _At:
        """Write a step and return where the next one goes."""
        value = at.value
        match part.step:
            case Map(fn):
                self.calls(index, part, at, f"{value} = {self.call(index, fn, at)}")
            case Filter(fn):
                self.filter(index, part, self.call(index, fn, at), at)
            case FlatMap(fn):
                # Names of its own for what is inside: outside, the record goes on to be the same.
                each, results = f"v{index}", self.call(index, fn, at)
                if part.judge is not None:
                    # All of them or none: half of what a failing record gives must not go on.
                    self.calls(index, part, at, f"all{index} = [*{results}]")
                    results = f"all{index}"
                self.add_call(at.depth, f"for {each} in {results}:", index, at)
                return _At(at.depth + 1, each, at.timestamp, at.key)
            case KeyBy(fn):
                key = f"k{index}"
                lines = [f"{key} = {self.call(index, fn, at)}"]
                if part.judge is not None:
                    lines.append(f"{self.name('check', index, part.check_key)}({key})")
                self.calls(index, part, at, *lines)
                return replace(at, key=key)
            case Fold():
                self.fold(index, part, part.step, part.table, at)
            case Process() | Connect():
                return self.process(index, part, at)
            case _:
                raise TypeError(f"a {type(part.step).__name__} cannot be fused")
        return at

    def call(self, index: int, fn: Any, at: _At) -> str:
        name = self.name("f", index, fn)
        if is_coroutine(fn):
            return f"await {name}({at.value})"
        self.plain.add(name)
        return f"{name}({at.value})"

    def filter(self, index: int, part: Part, keeps: str, at: _At) -> None:
        if part.judge is not None:
            # Also what says whether it is true may raise.
            self.calls(index, part, at, f"keeps = bool({keeps})")
            keeps = "keeps"
        elif self.timed:
            self.add_call(at.depth, f"keeps = {keeps}", index, at)
            keeps = "keeps"
        self.spent(index, at.depth)
        self.add_call(at.depth, f"if not {keeps}:", index, at)
        self.add(at.depth + 1, "continue")

    def calls(self, index: int, part: Part, at: _At, *lines: str) -> None:
        """Write lines in which a step may raise, and what becomes of a record that it fails at."""
        judge, depth = part.judge, at.depth
        if judge is None:
            self.add_calls(depth, index, at, lines)
            return
        record = f"{at.value}, {at.timestamp}, {at.key if part.keyed else 'None'}"
        self.add(depth, "try:")
        self.add_calls(depth + 1, index, at, lines)
        # Also a cancellation that nobody asked for.
        failing = f"{self.name('failing', index, survivable)}()"
        self.add(depth, f"except {failing} as error:")
        if judge.policy.strategy is None:
            failed = self.name("failed", index, judge.failed)
            self.add(depth + 1, f"await {failed}(error, {record})")
            self.begin(depth + 1)
            self.add(depth + 1, "continue")
            return
        # What is ready must not wait with it.
        self.add(depth + 1, "if out:")
        self.send(depth + 2)
        self.add(depth + 1, "tries = 1")
        again = self.name("again", index, judge.again)
        self.add(depth + 1, f"while await {again}(error, tries, {record}):")
        self.add(depth + 2, "try:")
        self.add_calls(depth + 3, index, at, [*lines, "break"])
        self.add(depth + 2, f"except {failing} as one_more:")
        self.add(depth + 3, "error = one_more; tries += 1")
        self.add(depth + 1, "else:")
        self.begin(depth + 2)
        self.add(depth + 2, "continue")

    def add_calls(self, depth: int, index: int, at: _At, lines: Sequence[str]) -> None:
        for line in lines:
            self.add_call(depth, line, index, at)

    def fold(self, index: int, part: Part, step: Fold, table: Table | None, at: _At) -> None:
        assert table is not None
        name, depth, k = self.name("table", index, table), at.depth, at.key
        layer, places, entries = f"layer{index}", f"places{index}", f"entries{index}"
        # A freeze replaces the layer, never during a run: fetched once here.
        self.prologue.append(f"{layer} = {name}.writable(); {places} = len({layer})")
        self.prologue.append(f"{entries} = {layer}[0]; is_wide{index} = {places} > 1")
        self.prologue.append(f"cold{index} = {name}.cold")
        if part.judge is not None:
            self.careful_fold(index, part, step, table, at)
            return
        self.add(depth, f"if is_wide{index}:")
        self.add_call(depth + 1, f"{entries} = {layer}[hash({k}) % {places}]", index, at)
        found = f"{entries}[{k}] if {k} in {entries} else cold{index}({k})"
        self.add_call(depth, f"a = {found}", index, at)
        if step.first is one and step.add is one_more and table.scalar is int:
            # Written out: calling and checking would cost as much as all the rest of the step.
            self.add(depth, "a = 1 if a is MISSING else a + 1")
            self.add(depth, f"{entries}[{k}] = a")
        else:
            self.add_up(index, step, table, at)
        result = "a"
        if step.result is not None:
            result = f"{self.name('result', index, step.result)}(a)"
        self.add_call(depth, f"{at.value} = ({k}, {result})", index, at)

    def careful_fold(self, index: int, part: Part, step: Fold, table: Table, at: _At) -> None:
        """Write a fold that stores nothing before all that may fail is done."""
        k, v, entries, places = at.key, at.value, f"entries{index}", f"places{index}"
        first, add = self.name("first", index, step.first), self.name("add", index, step.add)
        self.prologue.append(
            f"seal{index} = table{index}.seal; unseal{index} = table{index}.unseal"
        )
        result = "a"
        if step.result is not None:
            result = f"{self.name('result', index, step.result)}(a)"
        self.calls(
            index,
            part,
            at,
            f"if is_wide{index}: {entries} = layer{index}[hash({k}) % {places}]",
            f"a = {entries}[{k}] if {k} in {entries} else cold{index}({k})",
            f"a = {first}({v}) if a is MISSING else {add}(unseal{index}(a), {v})",
            f"stored = seal{index}({k}, a)",
            # Sealing may change the value (an int to a float): the changed one is sent.
            *(["a = stored"] if table.scalar is not None else []),
            f"result = ({k}, {result})",
        )
        self.add(at.depth, f"{entries}[{k}] = stored; {v} = result")

    def add_up(self, index: int, step: Fold, table: Table, at: _At) -> None:
        """From the accumulator found in the state make the next one, and store it."""
        k, v, seal, unseal = at.key, at.value, f"seal{index}", f"unseal{index}"
        first, add = self.name("first", index, step.first), self.name("add", index, step.add)
        store = f"entries{index}[{k}] = "
        self.prologue.append(f"{seal} = table{index}.seal; {unseal} = table{index}.unseal")
        if table.scalar is not None:
            is_known, before = f"is {self.name('scalar', index, table.scalar)}", "a"
            # Sealing may change the value (an int to a float): the changed one is sent.
            sealed = f"a = {seal}({k}, a); {store}a"
        else:
            is_known = f"in {self.name('quick', index, table.quick)}"
            before = f"a if type(a) {is_known} else {unseal}(a)"
            sealed = f"{store}{seal}({k}, a)"
        step_on = f"a = {first}({v}) if a is MISSING else {add}({before}, {v})"
        self.add_call(at.depth, step_on, index, at)
        self.add(at.depth, f"if type(a) {is_known}:")
        self.add(at.depth + 1, f"{store}a")
        self.add(at.depth, "else:")
        self.add_call(at.depth + 1, sealed, index, at)

    def process(self, index: int, part: Part, at: _At) -> _At:
        assert part.context is not None
        context = self.name("ctx", index, part.context)
        emitted = self.name("emitted", index, part.context.emitted)
        process = self.name("process", index, part.takes)
        depth = at.depth
        lines = [f"{context}.timestamp = {at.timestamp}"]
        if part.keyed:
            lines.append(f"{context}.key = {at.key}")
        elif part.right:
            # The records of a broadcast input have no keys, those before them may have had.
            self.prologue.append(f"{context}.forget_key()")
        if part.judge is not None and part.judge.undo is not None:
            # What was written before belongs to another record, or to none.
            lines.append(f"{self.name('begin', index, part.judge.undo.begin)}()")
        call = f"{process}({at.value}, {context})"
        if waits_for(part):
            lines.append(f"await {call}")
        else:
            # A plain method may return something to await, too.
            lines.append(f"waits = {call}")
            lines.append("if waits is not None and hasattr(waits, '__await__'): await waits")
        self.calls(index, part, at, *lines)
        self.spent(index, depth)
        if part.flush_sides is not None:
            sides = self.name("sides", index, part.context.sides)
            self.add(depth, f"if {sides}:")
            self.add(depth + 1, f"await {self.name('flush_sides', index, part.flush_sides)}()")
            self.begin(depth + 1)
        self.add(depth, f"if not {emitted}:")
        self.add(depth + 1, "continue")
        # Taken out at once: what follows may wait, and others may use the operator meanwhile.
        value, timestamp, taken = f"v{index}", f"t{index}", f"taken{index}"
        self.add(depth, f"{taken} = {emitted}[:]; {emitted}.clear()")
        self.add(depth, f"for {value}, {timestamp} in {taken}:")
        return _At(depth + 1, value, timestamp, at.key)

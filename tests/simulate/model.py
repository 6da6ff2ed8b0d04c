"""What a flow must write, by a plain model of it; and what it did write."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import msgspec

from flowrt.testing.memory_files import MemoryFiles
from tests.journeys.crash.judge import Verdict, judge
from tests.simulate.ageing import Life, wrong_rows
from tests.simulate.ends import Event
from tests.simulate.failing import Failing
from tests.simulate.flows import OUTPUT, split_key
from tests.simulate.letters import Letter, failures, letter_of, windows
from tests.simulate.machine import START_MS
from tests.simulate.operators import (
    WINDOW_MS,
    are_pair,
    delayed_row,
    pair_row,
    same_row,
    timer_number,
    window_end,
)
from tests.simulate.outputs import OutputSpec
from tests.simulate.spec import BROADCAST, BranchKind, BranchSpec, SinkSpec, Spec, good, is_bad

Rows = Iterable[Any]


def judge_all(spec: Spec, disk: MemoryFiles, counts: Counter[str]) -> Verdict:
    """Compare everything that was written with what must be; `counts` gets what it met."""
    verdict = Verdict()
    failed = list(failures(spec))
    for sink in spec.letters:
        verdict.add(_judge_letters(spec, sink, failed, written(sink, disk), counts))
    counts["records skipped"] += sum(failing.action == "skip" for failing, _ in failed)
    for branch in spec.branches:
        for sink in branch.sinks:
            verdict.add(_named(sink, _judge(spec, branch, sink, written(sink, disk), counts)))
        for output in branch.outputs:
            verdict.add(_judge_output(spec, branch, output))
    return verdict


def _judge_letters(
    spec: Spec,
    sink: SinkSpec,
    failed: list[tuple[Failing, Letter]],
    got: list[bytes],
    counts: Counter[str],
) -> Verdict:
    counts["letters"] += len(got)
    letters = [
        letter
        for failing, letter in failed
        if failing.action == "dead_letter" and failing.tag == sink.takes
    ]
    found = judge(
        map(msgspec.json.encode, letters),
        [msgspec.json.encode(letter_of(line)) for line in got],
    )
    return _named(sink, _as_delivered(spec, found))


def _named(sink: SinkSpec, verdict: Verdict) -> Verdict:
    verdict.examples = [f"{sink.name}: {example}" for example in verdict.examples]
    return verdict


def _as_delivered(spec: Spec, verdict: Verdict) -> Verdict:
    if spec.delivery == "at_least_once":
        verdict.repeated = 0
        verdict.examples = [line for line in verdict.examples if line.startswith("lost")]
    return verdict


def _judge_output(spec: Spec, branch: BranchSpec, output: OutputSpec) -> Verdict:
    """Judge what an output gave in all lives: what a life that died did not take is lost."""
    expected = map(msgspec.json.encode, _expected(spec, branch, branch.sinks[0]))
    verdict = judge(expected, [msgspec.json.encode(row) for row in output.got], complete=False)
    if output.when == "at_once" or output.may_repeat:
        verdict.repeated = 0
        verdict.examples.clear()
    verdict.examples = [f"{output.name}: {example}" for example in verdict.examples]
    return verdict


def written(sink: SinkSpec, disk: MemoryFiles) -> list[bytes]:
    """Return the visible rows of a sink, in their order, as JSON."""
    if sink.kind != "file":
        return [msgspec.json.encode(row) for row in sink.table.everything()]
    parts = [path for path in disk.paths() if path.startswith(f"{OUTPUT}/{sink.name}/part-")]
    return [line for part in sorted(parts) for line in disk.contents(part).splitlines()]


def _judge(
    spec: Spec, branch: BranchSpec, sink: SinkSpec, got: list[bytes], counts: Counter[str]
) -> Verdict:
    expected = [msgspec.json.encode(row) for row in _expected(spec, branch, sink)]
    if branch.kind == "tally":
        got = _one_tally(got)
    seen = Verdict()
    if branch.kind in BROADCAST:
        got = _without_rules(got, branch, sink, seen)
    if branch.life is not None:
        got = _without_seen(got, spec.good_events(branch), branch.life, seen, counts)
    # A timer of processing time that is due when the input ends may never fire; none fires twice.
    complete = sink.takes != "ticks"
    numbered = _number if branch.is_numbered and sink.roll_epochs == 1 else None
    verdict = judge(expected, got, numbered, complete=complete)
    verdict.add(seen)
    return _as_delivered(spec, verdict)


def _number(line: bytes) -> tuple[Hashable, int]:
    key, figure = msgspec.json.decode(line)
    return tuple(key), figure if isinstance(figure, int) else figure[0]


def _without_rules(
    lines: list[bytes], branch: BranchSpec, sink: SinkSpec, verdict: Verdict
) -> list[bytes]:
    """Judge the rules that rows saw: each rule once, and no fewer than the row of a key before."""
    assert branch.right is not None
    rules = good(branch.failing, branch.right.events())
    counted = {0: 0} | {rule.number + 1: count for count, rule in enumerate(rules, 1)}
    seen: dict[str, int] = {}
    rows = []
    for line in lines:
        who, (number, last, count) = msgspec.json.decode(line)
        rows.append(msgspec.json.encode([who, number]))
        verdict.wrong += counted.get(last) != count
        goes_back = branch.is_numbered and sink.roll_epochs == 1 and last < seen.get(str(who), 0)
        verdict.reordered += goes_back
        seen[str(who)] = last
        if counted.get(last) != count or goes_back:
            verdict.examples.append(f"rules: {line.decode()} of {len(rules)}")
    return rows


def _without_seen(
    lines: list[bytes], events: list[Event], life: Life, verdict: Verdict, counts: Counter[str]
) -> list[bytes]:
    """Judge what rows saw of state that expires."""
    rows = [msgspec.json.decode(line) for line in lines]
    wrong, expired = wrong_rows(life, events, rows)
    counts["expired"] += expired
    verdict.wrong += len(wrong)
    verdict.examples += [f"expired: {line}" for line in wrong[:5]]
    return [msgspec.json.encode([key, number]) for key, (number, _, _) in rows]


def _one_tally(lines: list[bytes]) -> list[bytes]:
    """Add up what the subtasks counted: how many there are is another figure in each life."""
    total = sum(msgspec.json.decode(line)[1] for line in lines)
    return [msgspec.json.encode(["tally", total])] if total else []


def _expected(spec: Spec, branch: BranchSpec, sink: SinkSpec) -> Rows:
    events = spec.good_events(branch)
    if sink.takes == "odd":
        return [same_row(event) for event in events if event.number % 2]
    if sink.takes == "ticks":
        return [["tick", key, (end - START_MS) // WINDOW_MS] for key, end in windows(events)]
    if branch.kind == "joined":
        assert branch.right is not None
        return _joined(events, good(branch.failing, branch.right.events()))
    if branch.kind == "windows":
        return _windows(events, branch.failing)
    if branch.kind == "reduce":
        return _reduced(spec.events(branch), branch.failing)
    return MODELS[branch.kind](events)


def _joined(lefts: list[Event], rights: list[Event]) -> Rows:
    for left in lefts:
        for right in rights:
            if left.key == right.key and are_pair(left, right):
                yield pair_row(left, right)
    left_keys, right_keys = (Counter(e.key for e in events) for events in (lefts, rights))
    for key in left_keys | right_keys:
        yield ["ended", key, left_keys[key], right_keys[key]]


def _fold(first: Callable[[Event], Any], add: Callable[[Any, Event], Any]) -> Any:
    def rows(events: list[Event]) -> Rows:
        folded: dict[Any, Any] = {}
        for event in events:
            key = split_key(event)
            folded[key] = add(folded[key], event) if key in folded else first(event)
            yield key, folded[key]

    return rows


def _running(events: list[Event]) -> Rows:
    add = lambda so_far, event: (so_far[0] + 1, so_far[1] + event.number)  # noqa: E731
    return _fold(lambda event: (1, event.number), add)(events)  # type: ignore[no-any-return]


def _recount(events: list[Event]) -> Rows:
    counted: Counter[int] = Counter()
    for _, number in _fold(lambda event: 1, lambda count, event: count + 1)(events):
        counted[number % 3] += 1
        yield number % 3, counted[number % 3]


def _reduced(events: list[Event], failing: Failing | None) -> Rows:
    kept: dict[Any, Event] = {}
    for event in events:
        key = split_key(event)
        if key not in kept:
            kept[key] = event
        elif is_bad(failing, event.number):
            continue
        elif event.number % 3:
            kept[key] = event
        yield key, kept[key]


def _windows(events: list[Event], failing: Failing | None) -> Rows:
    members: dict[tuple[int, int], list[Event]] = defaultdict(list)
    by_key: dict[int, list[Event]] = defaultdict(list)
    left: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        members[event.key, window_end(event)].append(event)
        by_key[event.key].append(event)
    for (key, end), inside in sorted(members.items()):
        if is_bad(failing, timer_number(key, end - 1)):
            left[key] += inside  # its timer takes back that it took them away
            continue
        rows = sorted(
            (event.split, event.number, event.copy) for event in inside + left.pop(key, [])
        )
        yield ["window", key, end - 1, sum(event.number for event in inside), rows]
    for key, all_of in by_key.items():
        numbers = [event.number for event in all_of]
        yield ["key", key, sum(numbers), max(numbers), len({window_end(e) for e in all_of})]


MODELS: dict[BranchKind, Callable[[list[Event]], Rows]] = {
    "same": lambda events: [same_row(event) for event in events],
    "running": _running,
    "count": _fold(lambda event: 1, lambda count, event: count + 1),
    "max": _fold(lambda e: e.number % 13, lambda largest, e: max(largest, e.number % 13)),
    "recount": _recount,
    "delayed": lambda events: [delayed_row(event) for event in events],
    "ruled": _fold(lambda event: 1, lambda count, event: count + 1),
    "marked": lambda events: [[same_row(event), 0] for event in events],
    "ageing": lambda events: [(split_key(event), event.number) for event in events],
    "tally": lambda events: [["tally", len(events)]] if events else [],
}

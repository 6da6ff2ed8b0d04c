"""The dead letters that a flow must send, by a plain model of it; and the records that it skips."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

from tests.simulate.ends import Event
from tests.simulate.failing import Failing, text_of
from tests.simulate.operators import timer_number, window_end
from tests.simulate.spec import BROADCAST, BranchSpec, SourceSpec, Spec

Letter: TypeAlias = list[Any]
"""Operator, value, key, timestamp, message, tries, and where it came from."""

Failed: TypeAlias = Iterator[tuple[Failing, Letter]]


def failures(spec: Spec) -> Failed:
    """Return what must fail for good, wherever that goes: the policy and the letter."""
    for source in spec.all_sources():
        yield from _of_stages(source)
    for branch in spec.branches:
        if branch.failing is not None:
            for letter in _of_branch(spec, branch, branch.failing):
                yield branch.failing, letter


def letter_of(line: bytes) -> Letter:
    """Return what counts of a letter as it was written."""
    letter = msgspec.json.decode(line)
    value, where, at = letter["value"], letter["where"], letter["timestamp"]
    # Only the source's task knows it, and what is chained there is another in each life.
    is_right = f"timer at {at}" == where if value is None else where is None or value[0] in where
    fields = [letter[name] for name in ("operator", "value", "key", "timestamp", "message")]
    return [*fields, letter["attempts"], "right place" if is_right else where]


def _letter(failing: Failing, operator: str, number: int, *record: Any) -> Letter:
    return [operator, *record, text_of(number), failing.tries + 1, "right place"]


def _of_record(failing: Failing, operator: str, event: Event, key: Any = None) -> Letter:
    return _letter(failing, operator, event.number, event, key, event.at)


def _of_stages(source: SourceSpec) -> Failed:
    for number, stage in enumerate(source.stages):
        failing, operator = stage.failing, f"{source.shelf.name}-{number}"
        if failing is None:
            continue
        for event in source.entering(number):
            if failing.is_bad(event.number):
                yield failing, _of_record(failing, operator, event)


def _of_branch(spec: Spec, branch: BranchSpec, failing: Failing) -> Iterator[Letter]:
    operator = f"{branch.name}-key" if branch.kind in ("count", "recount") else branch.name
    met = set()
    for event in spec.events(branch):
        is_first = (split := (event.split, event.key, event.copy)) not in met
        met.add(split)
        if branch.kind == "reduce" and is_first:
            continue  # it is kept as it is
        if failing.is_bad(event.number):
            yield _of_record(failing, operator, event, _key(branch, event))
    for event in [] if branch.right is None else branch.right.events():
        if failing.is_bad(event.number):
            key = None if branch.kind in BROADCAST else event.key
            yield _of_record(failing, operator, event, key)
    if branch.kind == "windows":
        for key, end in sorted(windows(spec.good_events(branch))):
            number = timer_number(key, end - 1)
            if failing.is_bad(number):
                yield _letter(failing, operator, number, None, key, end - 1)


def windows(events: list[Event]) -> set[tuple[int, int]]:
    """Return all windows: key and end."""
    return {(event.key, window_end(event)) for event in events}


def _key(branch: BranchSpec, event: Event) -> Any:
    if branch.kind in ("same", "windows", "delayed", "joined"):
        return event.key
    if branch.kind in ("running", "max", "reduce", "ruled", "ageing"):
        return event.split, event.key, event.copy
    return None

"""Finds who holds up the others. Only decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

Subtask: TypeAlias = tuple[str, int]

NOTICEABLE: Final = 0.1
"""Waiting for less than this share of the time is nothing to speak of (Flink says so, too)."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """One subtask: for which share of the time it was busy, and blocked, and others waited for it.

    `readers` are those who read the channels that it sends to.
    """

    busy: float
    blocked: float
    holds_up: float
    readers: Sequence[Subtask] = ()


def bottleneck(pressures: Mapping[Subtask, Pressure]) -> Subtask | None:
    """Return the subtask that causes the backpressure; None where there is none.

    From the one that is waited for most, on to whom that one waits for, down to one that is itself
    not blocked: those in between are slow only because it is.
    """
    found = _most_waited_for(pressures, pressures)
    if found is None:
        return _most_in_the_way(pressures)
    while pressures[found].blocked >= NOTICEABLE:
        further = _most_waited_for(pressures, pressures[found].readers)
        if further is None:
            break
        found = further
    return found


def _most_waited_for(
    pressures: Mapping[Subtask, Pressure], among: Iterable[Subtask]
) -> Subtask | None:
    held = [subtask for subtask in among if pressures[subtask].holds_up >= NOTICEABLE]
    return max(held, key=lambda subtask: pressures[subtask].holds_up, default=None)


def _most_in_the_way(pressures: Mapping[Subtask, Pressure]) -> Subtask | None:
    """Return who takes the event loop from those who had more to do, and were before it.

    Where all work is done by one processor nobody need wait for room: who gives others their turn
    waits until they have done what it sent.
    """
    found: Subtask | None = None
    for subtask, pressure in pressures.items():
        if pressure.blocked < NOTICEABLE:
            continue
        for behind in _all_behind(pressures, subtask):
            busy = pressures[behind].busy
            if busy > pressure.busy and (found is None or busy > pressures[found].busy):
                found = behind
    return found


def _all_behind(pressures: Mapping[Subtask, Pressure], subtask: Subtask) -> set[Subtask]:
    behind: set[Subtask] = set()
    left = [*pressures[subtask].readers]
    while left:
        reader = left.pop()
        if reader not in behind:
            behind.add(reader)
            left += pressures[reader].readers
    return behind

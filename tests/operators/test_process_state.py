"""process with keyed state: each kind of state keeps the laws of operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from flowrt.contract.operator import Context, Operator
from flowrt.contract.state import (
    AggregatingState,
    ListState,
    MapState,
    ReducingState,
    ValueState,
)
from flowrt.operators.process import process
from flowrt.testing import END, check_operator, record, records, watermark

pytestmark = pytest.mark.anyio


def first_letter(word: str) -> str:
    return word[0]


async def check(what: Any, words: str, expect: list[Any]) -> None:
    """Give words, with a watermark before the last."""
    *before, last = words.split()
    given = [*records(*before), watermark(5), record(last, at=9), END]
    emitted = [
        *records(*expect[: len(before)]),
        watermark(5),
        *(record(value, at=9) for value in expect[len(before) :]),
        END,
    ]
    await check_operator(process(what), given, emitted, key=first_letter)


@dataclass
class Seen:
    """What is known of a key."""

    words: int = 0
    longest: str = ""


class InAValue(Operator[str, Any]):
    seen = ValueState(Seen)

    def process(self, value: str, ctx: Context) -> None:
        seen = self.seen.get() or Seen()
        seen.words += 1
        seen.longest = max(seen.longest, value, key=len)
        self.seen.set(seen)
        ctx.emit((ctx.key, seen.words, seen.longest))


async def test_a_value() -> None:
    await check(
        InAValue,
        "to be to too by",
        [("t", 1, "to"), ("b", 1, "be"), ("t", 2, "to"), ("t", 3, "too"), ("b", 2, "be")],
    )


class InAList(Operator[str, Any]):
    words = ListState(str)

    async def process(self, value: str, ctx: Context) -> None:
        if len(self.words) == 2:
            ctx.emit(self.words.get())
            self.words.clear()
        else:
            ctx.emit(len(self.words))
        self.words.add(value)


async def test_a_list() -> None:
    await check(
        InAList,
        "to be too by bye b that",
        [0, 0, 1, 1, ["be", "by"], 1, ["to", "too"]],
    )


class InAMap(Operator[str, Any]):
    counts = MapState(str, int)

    def process(self, value: str, ctx: Context) -> None:
        if value.endswith("!"):
            self.counts.remove(value[:-1])
        else:
            self.counts.put(value, self.counts.get(value, 0) + 1)
        ctx.emit(dict(self.counts.items()))


async def test_a_map() -> None:
    await check(
        InAMap,
        "to too be to to! be too",
        [
            {"to": 1},
            {"to": 1, "too": 1},
            {"be": 1},
            {"to": 2, "too": 1},
            {"too": 1},
            {"be": 2},
            {"too": 2},
        ],
    )


class InAReduction(Operator[str, Any]):
    joined = ReducingState(lambda one, other: f"{one} {other}", str)

    def process(self, value: str, ctx: Context) -> None:
        self.joined.add(value)
        ctx.emit(self.joined.get())
        if value.endswith("!"):
            self.joined.clear()


async def test_a_reduction() -> None:
    await check(
        InAReduction,
        "to be be! to to! be to",
        ["to", "be", "be be!", "to to", "to to to!", "be", "to"],
    )


def _new() -> list[int]:
    return [0, 0]


def _add(mean: list[int], value: str) -> list[int]:
    mean[0] += 1
    mean[1] += len(value)
    return mean


class InAnAggregate(Operator[str, Any]):
    mean = AggregatingState(_new, _add, lambda mean: mean[1] / mean[0])

    def process(self, value: str, ctx: Context) -> None:
        self.mean.add(value)
        ctx.emit(self.mean.get())


async def test_an_aggregate() -> None:
    await check(InAnAggregate, "to be that bye to", [2.0, 2.0, 3.0, 2.5, 8 / 3])


COUNT = ValueState(int, default=0, name="count")


def in_a_function(value: str, ctx: Context) -> None:
    count = ctx.state(COUNT)
    count.set(count.get() + 1)
    ctx.emit(count.get())


async def in_a_coroutine(value: str, ctx: Context) -> None:
    in_a_function(value, ctx)


@pytest.mark.parametrize("fn", [in_a_function, in_a_coroutine])
async def test_the_state_of_a_function(fn: Callable[..., Any]) -> None:
    await check(fn, "to be to to by", [1, 1, 2, 3, 2])


class Sampler(Operator[str, Any]):
    """Keeps something for the subtask, not for a key: its sum goes to one of those restored."""

    def __init__(self) -> None:
        self.seen = 0

    def process(self, value: str, ctx: Context) -> None:
        self.seen += 1
        if self.seen % 2:
            ctx.emit(value)

    def snapshot(self) -> Any:
        return {"seen": self.seen}

    def restore(self, data: list[Any]) -> None:
        self.seen = sum(part["seen"] for part in data)


async def test_what_an_instance_keeps_beside_keyed_state() -> None:
    given = records("a", "b", "c", "d", "e")

    await check_operator(process(Sampler), given, records("a", "c", "e"))

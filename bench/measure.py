"""How the benches measure: interleaved runs on one core, the median ratio, nothing asserted.

Machines are noisy, so no absolute figure means much: what is compared runs in turns within one
process, and the ratio of each pair is taken before the median.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flowrt import Sink, SinkContext, Writer

ROUNDS = 5


@dataclass(frozen=True)
class Answer:
    """One question's answer. `ratio` is what the budget speaks of."""

    question: str
    ratio: float
    budget: str
    detail: str

    def __str__(self) -> str:
        return f"{self.question}\n    {self.ratio:8.3g}   (budget: {self.budget})   {self.detail}"


def pin_to_one_core() -> None:
    """Stay on one core, where the system lets us: moving between cores is the largest noise."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def seconds(call: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    gc.collect()
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def against(
    reference: Callable[[], Any], measured: Callable[[], Any], rounds: int = ROUNDS
) -> tuple[float, float, float]:
    """Return the median of `reference / measured` (2: twice as fast), and both medians (s)."""
    pairs = [(seconds(reference), seconds(measured)) for _ in range(rounds)]
    ratio = statistics.median(first / second for first, second in pairs)
    return ratio, *(statistics.median(column) for column in zip(*pairs, strict=True))


def millions(count: int, took: float) -> str:
    """Return a rate as text."""
    return f"{count / took / 1e6:.2f} M/s"


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` of an ordered sequence lies (nearest rank)."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class NullSink(Sink[Any]):
    """Takes everything and keeps nothing."""

    async def writer(self, ctx: SinkContext, prepared: Sequence[Any]) -> Writer[Any]:
        """Return a writer that drops what it is given."""
        return _NullWriter()


class _NullWriter:
    async def write(self, values: Sequence[Any], timestamps: Sequence[int | None] | None) -> None:
        pass

    async def prepare(self, epoch: int, final: bool = False) -> None:
        return None

    async def close(self) -> None:
        pass

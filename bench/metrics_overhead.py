"""What do the metrics of each operator leave of the chain bench's throughput?

In turns, with the close looks of `flowrt/dataflow/chains/samples.py` and without; in processor
time, for the difference is smaller than what other programs on the machine make.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable

from bench.chain import is_even, plus_one
from bench.measure import Answer, NullSink, millions
from flowrt import Flow, run
from flowrt.dataflow.chains import samples

RECORDS = 1_000_000
PAIRS = 30


def flow() -> None:
    """The flow of the chain bench, but shorter, so that there can be many pairs."""
    chain = Flow("chain")
    chain.source(range(RECORDS)).map(plus_one).filter(is_even).map(str).sink(NullSink())
    run(chain)


def without_looks() -> None:
    """The same, and no record is looked at."""
    kept = samples.FIRST_LOOK
    samples.FIRST_LOOK = sys.maxsize  # type: ignore[misc]  # no option: nobody should need it
    try:
        flow()
    finally:
        samples.FIRST_LOOK = kept  # type: ignore[misc]


def _seconds(call: Callable[[], None]) -> float:
    gc.collect()
    started = time.process_time()
    call()
    return time.process_time() - started


def main() -> Answer:
    """Measure."""
    flow()
    pairs = []
    for number in range(PAIRS):
        # Each goes first in half of the pairs.
        first, second = (without_looks, flow) if number % 2 else (flow, without_looks)
        took = {first: _seconds(first), second: _seconds(second)}
        pairs.append((took[without_looks], took[flow]))
    ratio = statistics.median(before / after for before, after in pairs)
    reference, measured = (statistics.median(column) for column in zip(*pairs, strict=True))
    detail = f"without {millions(RECORDS, reference)}, with {millions(RECORDS, measured)}"
    return Answer(__doc__ or "", ratio, "at least 0.97", detail)

"""What does a chain (map, filter, map) cost against a bare loop that calls the functions?"""

from __future__ import annotations

from bench.measure import Answer, NullSink, against, millions
from flowrt import Flow, run

RECORDS = 3_000_000
RUN = 1024


def plus_one(value: int) -> int:
    """Add one."""
    return value + 1


def is_even(value: int) -> bool:
    """Say whether a number is even."""
    return value % 2 == 0


def bare() -> None:
    """The loop that a person would write."""
    out: list[str] = []
    for number in range(RECORDS):
        value = plus_one(number)
        if is_even(value):
            out.append(str(value))
            if len(out) >= RUN:
                out = []


def flow() -> None:
    """The same functions as a flow."""
    chain = Flow("chain")
    chain.source(range(RECORDS)).map(plus_one).filter(is_even).map(str).sink(NullSink())
    run(chain)


def main() -> Answer:
    """Measure."""
    ratio, reference, measured = against(bare, flow)
    detail = f"bare {millions(RECORDS, reference)}, flowrt {millions(RECORDS, measured)}"
    return Answer(__doc__ or "", ratio, "at least 0.6, aim 0.85", detail)

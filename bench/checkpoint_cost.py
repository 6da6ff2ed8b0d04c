"""What share of the throughput do checkpoints (exactly once, 1 s epochs, 100,000 keys) leave?"""

from __future__ import annotations

from tempfile import TemporaryDirectory

from bench.measure import Answer, NullSink, against, millions
from flowrt import Continuous, Flow, run

RECORDS = 20_000_000
KEYS = 100_000


def key(number: int) -> int:
    """Spread numbers over the keys."""
    return number % KEYS


def counting() -> Flow:
    """A running count for each key."""
    flow = Flow("checkpoint-cost")
    flow.source(range(RECORDS)).key_by(key).count().sink(NullSink())
    return flow


def without() -> None:
    """No checkpoints."""
    run(counting())


def with_checkpoints() -> None:
    """An epoch each second, on disk."""
    with TemporaryDirectory() as folder:
        run(counting(), checkpoints=folder, scheduler=Continuous("1s"))


def main() -> Answer:
    """Measure."""
    ratio, reference, measured = against(without, with_checkpoints)
    detail = f"without {millions(RECORDS, reference)}, with {millions(RECORDS, measured)}"
    return Answer(__doc__ or "", ratio, "at least 0.9", detail)

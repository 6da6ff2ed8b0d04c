"""Named points of the epoch protocol where a test can kill, stop or fail the process.

Free when off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

FAILPOINTS: Final[Mapping[str, str]] = {
    "epoch.chosen": "S1",
    "source.barrier": "S2",
    "operator.first_barrier": "S3",
    "state.frozen": "S4",
    "state.written": "S5",
    "state.synced": "S6",
    "state.renamed": "S7",
    "sink.prepared": "S8",
    "task.acknowledged": "S9",
    "manifest.written": "S10",
    "manifest.synced": "S11",
    "manifest.renamed": "S12",
    "manifest.folder_synced": "S13",
    "commit.sent": "S14",
    "commit.acknowledged": "S15",
    "sources.told": "S16",
    "checkpoint.deleted": "S17",
    "lease.taken": "R1",
    "manifest.chosen": "R2",
    "manifest.verified": "R3",
    "state.loaded": "R4",
    "sinks.resolved": "R5",
    "sources.sought": "R6",
    "job.resumed": "R7",
}
"""Name of each failpoint to its step in the design.

S1 to S17 of an epoch, R1 to R7 of a recovery.
"""

_hit: Callable[[str], None] | None = None


def failpoint(name: str) -> None:
    """Mark a step of the protocol; calls what `arm_failpoints` armed, if anything."""
    if _hit is not None:
        if name not in FAILPOINTS:
            raise KeyError(f"no failpoint is named {name!r}")
        _hit(name)


def arm_failpoints(hit: Callable[[str], None] | None) -> None:
    """Call `hit(name)` at each failpoint from now on; None disarms all. For tests only."""
    global _hit
    _hit = hit

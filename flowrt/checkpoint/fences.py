"""Which manifests count: an instance that lost its lease may still rename one, too late to be seen.

Each generation notes the epoch that it resumed from, before it writes anything. A manifest of an
older generation with a newer epoch was not there then: it belongs to a life that nobody continued.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from flowrt.checkpoint.names import Made

MOST: Final = 100
"""How many fences are kept: those of more starts than any lost process could outlast."""


def counts(manifest: Made, fences: Iterable[Made]) -> bool:
    """Say whether a manifest belongs to the life that the newest generation continues."""
    later = (fence for fence in fences if fence.generation > manifest.generation)
    return all(manifest.epoch <= fence.epoch for fence in later)


def needless(fences: Iterable[Made], newest: Made) -> list[Made]:
    """Return the fences that shut out nothing that `newest` does not, and those beyond `MOST`."""
    others = sorted(fence for fence in fences if fence.generation < newest.generation)
    needed = [fence for fence in others if fence.epoch < newest.epoch]
    return [fence for fence in others if fence not in needed[-MOST + 1 :]]

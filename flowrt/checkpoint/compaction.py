"""Which state files to merge, and when: few files to read at a restore, few bytes written twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

FEWEST: Final = 4
"""Merging fewer files than this is not worth the writing."""


def plan(sizes: Sequence[int]) -> slice | None:
    """Choose which files (sizes in bytes, oldest first) to merge into one; None where none need be.

    The newest files are merged as soon as there are `FEWEST` of which the oldest is no larger than
    the rest together, with as many older ones as that holds for. So every file but the newest few
    is larger than all newer ones together: their number grows with the logarithm of their size.
    And each time bytes are written again, the file they are in has at least doubled (except a fresh
    file's bytes, once): how often that happens grows with the logarithm too.
    """
    newer = 0
    start = None
    for index in range(len(sizes) - 1, -1, -1):
        if len(sizes) - index >= FEWEST and sizes[index] <= newer:
            start = index
        newer += sizes[index]
    return None if start is None else slice(start, len(sizes))

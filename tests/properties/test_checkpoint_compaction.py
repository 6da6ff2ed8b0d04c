"""Compaction keeps both the number of files and the bytes written again within the logarithm."""

from __future__ import annotations

from math import log2

from hypothesis import given
from hypothesis import strategies as st

from flowrt.checkpoint.compaction import FEWEST, plan


@given(st.lists(st.integers(1, 1_000), max_size=400))
def test_few_files_and_few_bytes_written_again(fresh: list[int]) -> None:
    sizes: list[int] = []
    written = 0
    for size in fresh:
        sizes.append(size)
        merge = plan(sizes)
        if merge is not None:
            sizes[merge] = [sum(sizes[merge])]
        written += size if merge is None else sizes[-1]
        total = sum(sizes)

        assert len(sizes) <= log2(total) + FEWEST
        assert written <= total * (log2(total) + 2)
    assert sum(sizes) == sum(fresh)

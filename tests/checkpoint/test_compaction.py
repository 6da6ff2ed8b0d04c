"""Which files are merged."""

from __future__ import annotations

import pytest

from flowrt.checkpoint.compaction import plan


@pytest.mark.parametrize(
    ("sizes", "merged"),
    [
        ([], None),
        ([5], None),
        ([1, 1, 1], None),
        ([1, 1, 1, 1], slice(0, 4)),
        ([9, 1, 1, 1, 1], slice(1, 5)),
        ([4, 1, 1, 1, 1], slice(0, 5)),
        ([100, 50, 9, 2, 1, 1], None),
        ([1, 2, 100], None),
        ([100, 1, 2, 200], slice(0, 4)),
        ([0, 0, 0, 0], slice(0, 4)),
    ],
)
def test_the_newest_files_are_merged_when_they_outweigh_older_ones(
    sizes: list[int], merged: slice | None
) -> None:
    assert plan(sizes) == merged

"""Which manifests count."""

from __future__ import annotations

from flowrt.checkpoint.fences import MOST, counts, needless
from flowrt.checkpoint.names import Made


def test_a_manifest_that_was_not_there_when_the_next_generation_resumed_does_not_count() -> None:
    fences = [Made(generation=4, epoch=9)]

    assert counts(Made(generation=3, epoch=9), fences)
    assert not counts(Made(generation=3, epoch=10), fences)
    assert counts(Made(generation=4, epoch=10), fences)
    assert counts(Made(generation=3, epoch=10), [])


def test_a_generation_that_went_back_shuts_out_what_it_left_behind() -> None:
    fences = [Made(2, 9), Made(3, 4)]

    assert not counts(Made(generation=1, epoch=8), fences)
    assert not counts(Made(generation=2, epoch=5), fences)


def test_fences_that_a_later_one_makes_needless_go() -> None:
    fences = [Made(2, 3), Made(3, 9), Made(4, 9), Made(5, 9)]

    assert needless(fences, Made(5, 9)) == [Made(3, 9), Made(4, 9)]


def test_there_is_a_bound() -> None:
    fences = [Made(generation, generation) for generation in range(1, MOST + 5)]

    assert needless(fences, fences[-1]) == [Made(n, n) for n in (1, 2, 3, 4)]

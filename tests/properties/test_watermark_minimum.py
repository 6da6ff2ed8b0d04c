"""The watermark of several inputs, against a model that knows the whole history."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flowrt.contract.elements import MAX_TIMESTAMP, MIN_TIMESTAMP
from flowrt.dataflow.channels.inputs import WatermarkMinimum

TIMES = st.one_of(
    st.integers(-5, 5),
    st.sampled_from([MIN_TIMESTAMP, MAX_TIMESTAMP]),
    st.integers(MIN_TIMESTAMP, MAX_TIMESTAMP),
)


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[tuple[Any, ...]]]:
    inputs = draw(st.integers(1, 4))
    index = st.integers(0, inputs - 1)
    event = st.one_of(
        st.tuples(st.just("watermark"), index, TIMES),
        st.tuples(st.just("idle"), index),
        st.tuples(st.just("records"), index),
    )
    return inputs, draw(st.lists(event, max_size=30))


def model(inputs: int, history: list[tuple[Any, ...]]) -> tuple[int, bool]:
    """Look at every moment again: what each input said last, and the largest minimum ever."""
    largest = MIN_TIMESTAMP
    idle = [False] * inputs
    for now in range(len(history) + 1):
        said = [MIN_TIMESTAMP] * inputs
        idle = [False] * inputs
        for what, index, *time in history[:now]:
            idle[index] = what == "idle"
            if time:
                said[index] = max(said[index], *time)
        active = [s for s, rests in zip(said, idle, strict=True) if not rests]
        # Records say nothing of time: the minimum is looked at when time or rest changed.
        if now and history[now - 1][0] != "records":
            largest = max(largest, min(active) if active else max(said))
    return largest, all(idle)


@given(histories())
def test_it_is_the_largest_minimum_ever_of_the_inputs_that_are_not_idle(
    given: tuple[int, list[tuple[Any, ...]]],
) -> None:
    inputs, history = given
    minimum = WatermarkMinimum(inputs)
    told = MIN_TIMESTAMP
    for now, (what, index, *time) in enumerate(history, start=1):
        was_idle, before = minimum.idle, minimum.current
        if what == "records":
            assert minimum.wake(index) == was_idle
            news = None
        else:
            news = minimum.advance(index, *time) if time else minimum.rest(index)
        if news is not None:
            # It never goes back, and the same is told again only to say that a rest is over.
            assert news >= told
            assert news > told or was_idle or before == news == MIN_TIMESTAMP
            told = news
        elif not (was_idle and what == "records"):
            assert minimum.current == before
        assert (minimum.current, minimum.idle) == model(inputs, history[:now])


@given(histories())
def test_the_order_in_which_inputs_fall_idle_does_not_matter(
    given: tuple[int, list[tuple[Any, ...]]],
) -> None:
    inputs, history = given
    ends = []
    for order in (range(inputs), reversed(range(inputs))):
        minimum = WatermarkMinimum(inputs)
        for what, index, *time in history:
            if time:
                minimum.advance(index, *time)
            elif what == "records":
                minimum.wake(index)
        for index in order:
            minimum.rest(index)
        ends.append(minimum.current)
    assert ends[0] == ends[1]

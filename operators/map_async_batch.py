"""Map_async_batch: as map_async, for services that take many values in one call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from flowrt.contract.errors import GraphError
from flowrt.contract.retry import RetryStrategy
from flowrt.contract.steps import MapAsync
from flowrt.contract.time import Duration, duration_ms
from flowrt.contract.world import World
from flowrt.operators.arguments import name_of
from flowrt.operators.calls import Cache, Call, batched, cached
from flowrt.operators.map_async import check_call, with_care


def map_async_batch(
    fn: Callable[[list[Any]], Awaitable[Sequence[Any]]],
    *,
    max_size: int,
    max_wait: Duration = "5ms",
    capacity: int = 1000,
    ordered: bool = True,
    timeout: Duration | None = None,
    retry: RetryStrategy | None = None,
    cache: Cache | None = None,
    type: Any = None,
) -> MapAsync:
    """Replace values by what `await fn(values)` returns for them: one answer each, in their order.

    The answers are a list, another `Sequence` that is no text, or an array: anything else, such as
    a dict or a generator, is a `TypeError`, and another number of them a `ValueError`. A call goes
    out when `max_size` values are there, or `max_wait` after the first of them. `capacity` counts
    values, not calls. `timeout` and `retry` are for a whole call. Values that are in `cache` are
    not asked for. For the rest see `map_async`.

    >>> from flowrt import Flow, MemorySink, run
    >>> async def prices_of(items):
    ...     return [{"tea": 3, "coffee": 4}[item] for item in items]
    >>> flow, prices = Flow("prices"), MemorySink()
    >>> flow.source(["tea", "coffee", "tea"]).map_async_batch(prices_of, max_size=50).sink(prices)
    >>> job = run(flow)
    >>> prices.rows
    [3, 4, 3]
    """
    check_call(fn, "map_async_batch", capacity)
    if not 1 <= max_size <= capacity:
        raise GraphError(
            f"map_async_batch has max_size={max_size!r} and capacity={capacity!r}: a batch needs "
            "at least 1 value, and as many as a batch has must fit into the capacity"
        )
    timeout_ms = None if timeout is None else duration_ms(timeout)
    max_wait_ms = duration_ms(max_wait)

    def make(world: World) -> Call:
        # A list of its own for each try: `fn` may do with it what it likes.
        many = with_care(lambda values: fn([*values]), timeout_ms, retry, world)
        call = batched(many, max_size, max_wait_ms, world.clock)
        return call if cache is None else cached(call, cache, world.clock)

    return MapAsync(make, capacity, ordered, type, f"{name_of(fn)}, {max_size} values a call")

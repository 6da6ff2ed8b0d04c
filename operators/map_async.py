"""Map_async: one value in, one value out, with many calls under way at once."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from flowrt.contract.errors import GraphError
from flowrt.contract.retry import RetryStrategy
from flowrt.contract.steps import MapAsync
from flowrt.contract.time import Duration, duration_ms
from flowrt.contract.world import World
from flowrt.operators.arguments import check_function, name_of
from flowrt.operators.calls import Cache, Call, cached, limited, retried


def map_async(
    fn: Callable[[Any], Awaitable[Any]],
    *,
    capacity: int = 100,
    ordered: bool = True,
    timeout: Duration | None = None,
    retry: RetryStrategy | None = None,
    cache: Cache | None = None,
    type: Any = None,
) -> MapAsync:
    """Replace each value by what `await fn(value)` returns, with up to `capacity` calls at once.

    `timeout` is for each try; `retry` says which tries follow an exception or a timeout. The last
    exception fails the flow, naming the operator and the record. For the rest see
    `flowrt.contract.steps.MapAsync`. `fn` must not change its value: after a restore it gets it
    again from the snapshot.

    >>> from flowrt import Flow, MemorySink, run
    >>> async def price(item):
    ...     return item, {"tea": 3, "coffee": 4}[item]  # or whatever a service answers
    >>> flow, prices = Flow("prices"), MemorySink()
    >>> flow.source(["tea", "coffee"]).map_async(price, capacity=100, timeout="2s").sink(prices)
    >>> job = run(flow)
    >>> prices.rows
    [('tea', 3), ('coffee', 4)]
    """
    check_call(fn, "map_async", capacity)
    timeout_ms = None if timeout is None else duration_ms(timeout)

    def make(world: World) -> Call:
        call = with_care(fn, timeout_ms, retry, world)
        return call if cache is None else cached(call, cache, world.clock)

    return MapAsync(make, capacity, ordered, type, name_of(fn))


def check_call(fn: object, operator: str, capacity: int) -> None:
    """Refuse what gives nothing to await, and a capacity that lets no call through."""
    check_function(fn, operator)
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise GraphError(
            f"{operator} needs a coroutine function as fn, and {name_of(fn)} yields: return a "
            "list and put flat_map behind it"
        )
    if capacity < 1:
        raise GraphError(
            f"{operator} has capacity={capacity!r}: it is the number of calls that may be under "
            "way, and must be at least 1"
        )


def with_care(
    fn: Callable[[Any], Awaitable[Any]],
    timeout_ms: int | None,
    retry: RetryStrategy | None,
    world: World,
) -> Call:
    """Put a time limit and further tries around a call."""
    call = fn if timeout_ms is None else limited(fn, timeout_ms, world.clock)
    return call if retry is None else retried(call, retry, world)

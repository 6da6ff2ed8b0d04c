"""What operators are given is checked when a flow is described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from flowrt.contract.errors import GraphError
from flowrt.operators.arguments import (
    check_function,
    check_plain,
    is_coroutine_function,
    state_type,
    takes,
)

if TYPE_CHECKING:
    from decimal import Decimal

T = TypeVar("T")


async def coroutine(value: Any) -> Any:
    return value


class Callable_:
    async def __call__(self, value: Any) -> Any:
        return value


@dataclass
class Figures:
    total: int


@pytest.mark.parametrize("fn", [coroutine, partial(coroutine), Callable_()])
def test_a_coroutine_function_is_seen_in_any_dress(fn: Any) -> None:
    assert is_coroutine_function(fn)
    with pytest.raises(GraphError, match="is a coroutine function: put what waits into a map"):
        check_plain(fn, "key_by")


def test_a_plain_function_is_none() -> None:
    assert not is_coroutine_function(str)
    check_plain(str.lower, "key_by")


def test_the_number_of_arguments() -> None:
    assert takes(lambda value: value, 1)
    assert takes(lambda *values: values, 7)
    assert takes(lambda value, more=None: value, 1)
    assert not takes(lambda value, more: value, 1)
    assert not takes(lambda: 5, 1)
    # Some builtins don't tell.
    assert takes(max, 2)
    assert takes(dict, 0)
    with pytest.raises(GraphError, match=r"count calls fn with 2 arguments, and str.lower cannot"):
        check_function(str.lower, "count", arguments=2)
    with pytest.raises(GraphError, match="load calls table with no argument, and"):
        check_function(lambda value: value, "load", arguments=0, argument="table")


def annotated(returned: Any) -> Any:
    def fn(value: Any) -> Any:
        return value

    fn.__annotations__["return"] = returned
    return fn


@pytest.mark.parametrize(
    "returned",
    [int, str, Figures, dict[str, int], tuple[int, float], int | None, Mapping[str, int]],
)
def test_the_type_that_a_function_says_it_returns(returned: Any) -> None:
    assert state_type(annotated(returned)) == returned


@pytest.mark.parametrize(
    "returned",
    [
        Any,
        object,
        None,
        float,
        complex,
        T,
        "NoSuchName",
        "not python",
        dict[Figures, int] | list[int] | set[int],
    ],
)
def test_a_type_that_says_nothing_or_is_not_to_be_trusted(returned: Any) -> None:
    assert state_type(annotated(returned)) is None


def test_functions_that_say_nothing() -> None:
    def only_for_checkers(value: Any) -> Decimal:
        raise NotImplementedError

    assert state_type(lambda value: value) is None
    assert state_type(max) is None
    assert state_type(Callable_()) is None
    assert state_type(partial(max, 1)) is None
    assert state_type(only_for_checkers) is None

"""Shapes of types: which changes keep stored values from being read, and how they are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, make_dataclass
from typing import Any, Literal, NamedTuple

import msgspec
import pytest

from flowrt.state.shapes import changes, shape_of
from tests.state.classes import Basket, Color, Place, Point


def struct(name: str = "Item", **fields: Any) -> Any:
    """Make a Struct; a field is a type, or a pair of type and default."""
    described = [(field, *(t if isinstance(t, tuple) else (t,))) for field, t in fields.items()]
    return msgspec.defstruct(name, described, module="shop", kw_only=True)


def record(name: str = "Item", **fields: Any) -> Any:
    """Make a dataclass with the same fields."""
    described: list[Any] = [
        (field, t[0], t[1]) if isinstance(t, tuple) else (field, t) for field, t in fields.items()
    ]
    return make_dataclass(name, described, namespace={"__module__": "shop"}, kw_only=True)


MAKE = pytest.mark.parametrize("make", [struct, record])


def between(before: Any, now: Any) -> list[str]:
    return changes(shape_of(before), shape_of(now))


@MAKE
def test_what_loads_is_no_change(make: Callable[..., Any]) -> None:
    item = make(x=int, y=str)

    assert between(item, item) == []
    assert between(item, make(y=str, x=int)) == []
    assert between(item, make(x=int, y=str, z=(int, 0))) == []
    assert between(item, make(x=(int, 5), y=str)) == []
    assert between(item, make(x=float, y=str | None)) == []
    assert between(item, make(x=int | str, y=Any)) == []
    assert between(item, make("Renamed", x=int, y=str)) == []
    nested = make("Items", items=list[make(x=int, y=str)])  # type: ignore[misc]
    assert between(nested, nested) == []


@MAKE
def test_what_does_not_load_is_told_field_by_field(make: Callable[..., Any]) -> None:
    item = make(x=int, y=str)

    assert between(item, make(x=int)) == ["field 'y' (str) is gone"]
    assert between(item, make(x=int, y=str, z=int)) == ["field 'z' (int) is new and has no default"]
    assert between(item, make(x=str, y=str)) == ["field 'x' was int and is str now"]
    assert between(make(x=int | None), make(x=int)) == ["field 'x' was int or none and is int now"]
    assert between(item, make("Thing", x=int)) == [
        "class shop:Item is shop:Thing now",
        "field 'y' (str) is gone",
    ]
    assert between(item, int) == ["its type was Item and is int now"]
    assert between(list[int], list[str]) == ["field '[]' was int and is str now"]
    assert between(list[int], dict[str, int]) == [
        "its type was list[int] and is dict[str, int] now"
    ]
    assert between(Literal["a", "b"], Literal["a"])
    assert between(item, None) == ["its type was Item and is undeclared now"]
    assert between(None, item) == []


@MAKE
def test_records_within_records(make: Callable[..., Any]) -> None:
    before = make("Order", items=list[make(x=int, y=str)], by=dict[str, make(x=int)])  # type: ignore[misc]
    now = make("Order", items=list[make(x=int)], by=dict[str, make(x=str)])  # type: ignore[misc]

    assert between(before, now) == [
        "field 'items[].y' (str) is gone",
        "field 'by[].x' was int and is str now",
    ]


class Pair(NamedTuple):
    left: int
    right: str = ""


class Swapped(NamedTuple):
    right: str
    left: int


class Tree(msgspec.Struct):
    value: int
    children: list[Tree] = []


@dataclass
class Kept:
    place: Place
    color: Color
    point: Point
    basket: Basket


def test_what_is_encoded_by_position_must_keep_its_order() -> None:
    assert "moved" in between(Pair, Swapped)[-1]
    assert between(Pair, Pair) == []


def test_shapes_are_plain_data_also_of_classes_within_themselves() -> None:
    for declared in (Tree, Kept, Color, dict[str, Tree], complex, tuple[int, ...], int):
        shape = shape_of(declared)
        assert msgspec.json.decode(msgspec.json.encode(shape)) == shape
        assert between(declared, declared) == []

"""Bytes that say what they are: builtins exactly, classes by name, nothing that is not loaded."""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from types import ModuleType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from msgspec.msgpack import Ext

from flowrt.state.classes import Unfit
from flowrt.state.self_describing import decode, encode, plain
from tests.state.classes import (
    Access,
    Basket,
    Carrier,
    Color,
    Deep,
    Level,
    Open,
    Outer,
    Place,
    Point,
    Stats,
    Untold,
    Watched,
)

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    "value",
    [
        2**64,
        -(2**63) - 1,
        "half \ud800",
        ["half \ud800", {"\udfff": (2**90,)}],
        -0.0,
        1 + 2j,
        Decimal("1.50"),
        Decimal("sNaN"),
        UUID(int=7),
        {1: "int", "1": "text", (1,): "tuple", None: "none", 2**70: "large"},
        {"a": {"b": [(), set(), frozenset(), {}, []]}},
        datetime(2024, 1, 1),  # noqa: DTZ001
        datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
        datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=2), "named")),
        datetime(2024, 1, 1, 1, 2, 3, 4, tzinfo=timezone(-timedelta(seconds=1))),
        time(2, 30, fold=1, tzinfo=BERLIN),
        time(2, 30, tzinfo=UTC),
        timedelta.max,
        Basket(["a"], 1.5),
        Place("JFK"),
        Deep(Place("JFK"), (1, 2)),
        Stats(1, 2),
        Open({"a"}),
        Watched(3),
        Point(1, 2),
        Outer.Inner(4),
        Color.GREEN,
        Carrier.UNITED,
        Level.ONE,
        Access.READ | Access.WRITE,
    ],
    ids=repr,
)
def test_a_value_comes_back_exactly(value: Any) -> None:
    back = decode(encode(value))

    assert type(back) is type(value)
    assert repr(back) == repr(value)


def test_not_a_number_comes_back() -> None:
    assert math.isnan(decode(encode(float("nan"))))


def test_utc_is_the_one_utc() -> None:
    assert decode(encode(datetime(2024, 1, 1, tzinfo=UTC))).tzinfo is UTC


def test_equal_sets_have_equal_bytes() -> None:
    assert encode(frozenset(["a", "b", "c"])) == encode(frozenset(["c", "b", "a"]))


class Text(str):
    __slots__ = ()


def _itself() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"a": [object()]}, "type builtins:object cannot be stored: use builtins, a dataclass"),
        (bytearray(b"a"), "type builtins:bytearray"),
        (Text("a"), "Text cannot be stored"),
        (lambda: 1, "type builtins:function"),
        (int, "type builtins:type"),
        (_itself(), "nested too deeply, or contains itself"),
        (datetime(2024, 1, 1, tzinfo=Untold()), "Untold cannot be stored: use datetime.timezone"),
    ],
)
def test_what_cannot_be_stored_is_named(value: Any, reason: str) -> None:
    with pytest.raises(Unfit) as raised:
        encode(value)

    assert reason in str(raised.value)


def test_a_local_class_is_refused_when_written() -> None:
    class Local(msgspec.Struct):
        id: int

    with pytest.raises(Unfit, match="cannot be found again by its name"):
        encode(Local(1))


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A loaded module with a class of its own."""
    module = ModuleType("shop")
    monkeypatch.setitem(sys.modules, "shop", module)
    define(module, x=int, y=int)
    return module


def define(module: ModuleType, **fields: type) -> Any:
    cls = msgspec.defstruct("Item", list(fields.items()), module="shop", namespace={})
    cls.__qualname__ = "Item"
    vars(module)["Item"] = cls
    return cls


def test_a_class_is_never_imported_because_a_snapshot_names_it(
    shop: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(shop.Item(1, 2))
    monkeypatch.delitem(sys.modules, "shop")

    with pytest.raises(Unfit, match="'shop' is not loaded: import it before the flow starts"):
        decode(data)


def test_a_class_that_is_gone_is_named(shop: ModuleType) -> None:
    data = encode(shop.Item(1, 2))
    del shop.Item

    with pytest.raises(Unfit, match="class shop:Item was stored, and module 'shop' has no such"):
        decode(data)


def test_a_modules_own_getattr_is_never_run(shop: ModuleType) -> None:
    data = encode(shop.Item(1, 2))
    del shop.Item

    def run_code(name: str) -> Any:
        raise AssertionError(f"asked for {name}")

    vars(shop)["__getattr__"] = run_code
    with pytest.raises(Unfit, match="no such class"):
        decode(data)


@pytest.mark.parametrize("name", ["builtins:eval", "builtins:object", "subprocess:Popen", "x", ":"])
def test_only_classes_with_fields_are_made(name: str) -> None:
    data = msgspec.msgpack.encode(Ext(5, msgspec.msgpack.encode([name, {}])))

    with pytest.raises(Unfit):
        decode(data)


def test_a_field_added_with_a_default_is_filled(shop: ModuleType) -> None:
    data = encode(shop.Item(1, 2))
    cls = msgspec.defstruct("Item", ["x", "y", ("z", int, 9)], module="shop")
    vars(shop)["Item"] = cls

    assert decode(data) == cls(1, 2, 9)


def test_a_field_added_without_a_default_is_named(shop: ModuleType) -> None:
    data = encode(shop.Item(1, 2))
    define(shop, x=int, y=int, z=int)

    with pytest.raises(Unfit, match="'z'"):
        decode(data)


def test_a_field_that_is_gone_is_named(shop: ModuleType) -> None:
    data = encode(shop.Item(1, 2))
    define(shop, x=int)

    with pytest.raises(Unfit, match="a field 'y', and the class has none: give the state migrate="):
        decode(data)


def test_a_dataclass_gets_defaults_too() -> None:
    assert decode(record_of(Basket, items=["a"])) == Basket(["a"], 0.0)
    with pytest.raises(Unfit, match="no field 'airport': give that field a default"):
        decode(record_of(Place, gate=1))


def record_of(cls: type, **fields: Any) -> bytes:
    """A record with fields other than its class has now."""
    name = f"{cls.__module__}:{cls.__qualname__}"
    return msgspec.msgpack.encode(Ext(5, msgspec.msgpack.encode([name, fields])))


def test_as_builtins_a_record_is_a_dict_whatever_became_of_its_class(shop: ModuleType) -> None:
    data = encode({"a": [shop.Item(1, (2, Color.RED))], 1: {2}})
    del shop.Item

    assert plain(data) == {"a": [{"x": 1, "y": (2, "RED")}], 1: {2}}
    with pytest.raises(Unfit, match="cannot be read"):
        plain(data[:-1])


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", encode([1, 2])[:-1], encode((1, 2))[:-1], msgspec.msgpack.encode(Ext(99, b""))],
)
def test_bytes_that_are_none_of_ours_are_refused(data: bytes) -> None:
    with pytest.raises(Unfit, match="the stored bytes"):
        decode(data)


def test_an_enum_member_that_is_gone_is_named() -> None:
    with pytest.raises(Unfit, match="Color has no member 'ODD' any more"):
        decode(encode(Color.RED).replace(b"RED", b"ODD"))

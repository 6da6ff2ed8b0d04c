"""Which values are stored as they are, which sealed, and which refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import msgspec
import pytest

from flowrt.state.classes import Unfit
from flowrt.state.codec import codec_for
from flowrt.state.sealed import Sealed
from tests.state.classes import (
    Basket,
    Carrier,
    Color,
    Deep,
    Labelled,
    Open,
    Place,
    Point,
    Positive,
    Stats,
    Untold,
)


@pytest.mark.parametrize(
    "value",
    [
        *(1, 2**90, 1.5, "a", b"a", True, None, 1j, Decimal(1), date(2024, 1, 1), timedelta(1)),
        *(datetime(2024, 1, 1, tzinfo=UTC), (), (1, "a"), Color.RED, Place("JFK"), Stats(1)),
        Point(1),
    ],
    ids=repr,
)
def test_what_never_changes_is_stored_as_it_is(value: Any) -> None:
    codec = codec_for(None)

    assert codec.seal(value) is value
    assert codec.unseal(value) is value
    assert type(codec.restore(codec.encode(value))) is type(value)


@pytest.mark.parametrize(
    "value",
    [[1], {"a": 1}, {1}, ([],), Basket(["a"]), Open({"a"}), Deep(Place("JFK")), Place([1])],  # type: ignore[arg-type]
    ids=repr,
)
def test_what_could_change_is_stored_sealed(value: Any) -> None:
    codec = codec_for(None)

    stored = codec.seal(value)

    assert type(stored) is Sealed
    assert codec.unseal(stored) == value
    assert codec.unseal(stored) is not codec.unseal(stored)
    assert codec.restore(bytes(stored)) == stored


def test_a_scalar_is_held_to_its_type() -> None:
    codec = codec_for(int)

    assert codec.scalar is int
    assert codec.seal(2**90) == 2**90
    for wrong in ("1", 1.0, True, None, [1]):
        with pytest.raises(Unfit, match="cannot be stored where int is declared"):
            codec.seal(wrong)


def test_an_int_becomes_the_declared_float() -> None:
    codec = codec_for(float)

    assert repr(codec.seal(1)) == "1.0"
    with pytest.raises(Unfit, match="too large"):
        codec.seal(10**400)
    with pytest.raises(Unfit, match="float is declared"):
        codec.seal(True)


@pytest.mark.parametrize("declared", [None, datetime])
def test_a_time_zone_that_cannot_be_stored_is_refused_when_written(declared: Any) -> None:
    codec = codec_for(declared)

    assert codec.scalar is None
    with pytest.raises(Unfit, match="time zone"):
        codec.seal(datetime(2024, 1, 1, tzinfo=Untold()))


@pytest.mark.parametrize("declared", [list, dict, tuple, set, frozenset])
def test_a_bare_container_keeps_what_it_holds(declared: Any) -> None:
    codec = codec_for(declared)
    value = declared([((1, "a"), (2, "b"))])

    back = codec.unseal(codec.restore(bytes(codec.encode(codec.seal(value)))))

    assert back == value
    assert type(back) is declared
    with pytest.raises(Unfit, match=f"where {declared.__name__} is declared"):
        codec.seal("text")
    with pytest.raises(Unfit, match="is declared now"):
        codec.restore(codec_for(str).encode("text"))


@dataclass(frozen=True)
class Constrained:
    side: Literal["buy", "sell"]


class Row(NamedTuple):
    id: int
    tags: tuple[str, ...]


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (Place, Place("JFK")),
        (Stats, Stats(1, 2.0)),
        (Point, Point(1, 2)),
        (Labelled, Labelled(1, "a")),
        (Constrained, Constrained("buy")),
        (int | None, None),
        (int | None, 3),
        (Carrier, Carrier.UNITED),
    ],
    ids=repr,
)
def test_a_declared_constant_is_stored_as_it_is(declared: Any, value: Any) -> None:
    codec = codec_for(declared)

    assert codec.seal(value) is value
    assert codec.seal(value) is value
    again = codec.restore(codec.encode(value))
    assert again == value
    assert type(again) is type(value)


def test_the_type_of_a_field_is_the_same_with_and_without_a_restore() -> None:
    codec = codec_for(Stats)

    for _ in range(2):  # an int where a float is declared
        stored = codec.seal(Stats(1, 2))
        assert type(stored) is Sealed
        assert repr(codec.unseal(stored)) == "Stats(count=1, mean=2.0)"
    assert type(codec.seal(Stats(1, 2.0))) is Stats


def test_an_immutable_class_with_a_mutable_field_is_sealed() -> None:
    codec = codec_for(Row)
    row = Row(1, ("a",))

    assert type(codec.seal(row)) is Sealed
    assert codec.unseal(codec.seal(row)) == row


@pytest.mark.parametrize(
    ("declared", "value", "reason"),
    [
        (Stats, msgspec.structs.replace(Stats(), count="x"), "Expected `int`, got `str`"),
        (Stats, 5, "Expected `object`, got `int`"),
        (Positive, Positive(-1), "Expected `int` >= 1"),
        (Constrained, Constrained("hold"), "Invalid enum value 'hold'"),  # type: ignore[arg-type]
        (dict[str, int], {"a": "b"}, "Expected `int`, got `str`"),
        (dict[str, object], {"a": object()}, "Encoding objects of type object is unsupported"),
        (list[int], {1: 2}, "Expected `array`, got `object`"),
    ],
)
def test_what_does_not_fit_is_refused_when_written(declared: Any, value: Any, reason: str) -> None:
    codec = codec_for(declared)
    fine = {Positive: Positive(1), Constrained: Constrained("buy"), Stats: Stats()}.get(declared)
    if fine is not None:
        codec.seal(fine)  # one that fits says nothing about others with limits

    with pytest.raises(Unfit) as raised:
        codec.seal(value)

    assert reason in str(raised.value)


def test_a_subclass_is_not_cut_down_to_the_declared_class() -> None:
    @dataclass(frozen=True)
    class Wide(Place):
        seats: int = 0

    with pytest.raises(Unfit, match=r"would come back as the declared tests.state.classes:Place"):
        codec_for(Place).seal(Wide("JFK"))


def test_numbers_beyond_64_bits_fit_a_declared_type() -> None:
    codec = codec_for(Stats)
    large = Stats(2**80, 1.0)

    assert codec.restore(bytes(codec.encode(codec.seal(large)))) == large
    assert codec.restore(bytes(codec.encode(codec.seal(Stats(1, 1.0))))) == Stats(1, 1.0)


def test_not_a_number_fits_a_declared_type() -> None:
    codec = codec_for(Stats)

    back = codec.unseal(codec.seal(Stats(1, float("nan"))))

    assert back.mean != back.mean
    assert type(codec.seal(Stats(1, 2.0))) is Stats


def test_a_local_class_can_be_declared() -> None:
    class Local(msgspec.Struct):
        id: int

    codec = codec_for(Local)

    assert codec.unseal(codec.seal(Local(1))) == Local(1)


@pytest.mark.parametrize("declared", ["int", lambda: 1, list["Nothing"]])  # type: ignore[name-defined]  # noqa: F821
def test_what_is_no_type_cannot_be_declared(declared: Any) -> None:
    with pytest.raises(Unfit, match="cannot be used"):
        codec_for(declared)


@pytest.mark.parametrize(
    ("written", "declared"), [(str, int), (None, int), (dict[str, int], Stats), (list[int], str)]
)
def test_bytes_of_another_type_are_refused(written: Any, declared: Any) -> None:
    values: dict[Any, Any] = {str: "a", None: [1], dict[str, int]: {"count": "x"}, list[int]: [1]}
    before = codec_for(None if written is not str else str)

    with pytest.raises(Unfit):
        codec_for(declared).restore(bytes(before.encode(before.seal(values[written]))))

"""Values that an operator keeps beside keyed state, as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from flowrt.contract.errors import StateError
from flowrt.state.values import DescribedValues


@dataclass
class City:
    name: str
    people: int = 0


def values(declared: Any = None) -> DescribedValues:
    return DescribedValues("ask", "a record in flight", declared)


@pytest.mark.parametrize(
    "value", [1, "a", b"a", None, 1.5, {"a": [1, (2, None)]}, [{"b": {1, 2}}], City("Ulm", 3)]
)
def test_values_come_back_as_they_were(value: Any) -> None:
    data = values().encode(value)

    assert type(data) is bytes  # nothing else can lie in a manifest
    assert values().decode(data) == value


@pytest.mark.parametrize("declared", [City, dict[str, int], list[City]])
def test_a_declared_type(declared: Any) -> None:
    value: Any = {City: City("Ulm"), dict[str, int]: {"a": 1}}.get(declared, [City("Ulm")])

    assert values(declared).decode(values(declared).encode(value)) == value


def test_changing_a_value_changes_no_bytes() -> None:
    value = [1]
    data = values().encode(value)
    value.append(2)

    assert values().decode(data) == [1]
    assert values().decode(data) is not values().decode(data)


def test_errors_name_operator_and_what_it_was() -> None:
    with pytest.raises(StateError, match=r"operator 'ask', a record in flight: .*object"):
        values().encode(object())
    with pytest.raises(StateError, match="operator 'ask', a record in flight: "):
        values(City).encode("Ulm")
    with pytest.raises(StateError, match="operator 'ask', a record in flight: "):
        values().decode(b"\xc1")
    with pytest.raises(StateError, match="operator 'ask', a record in flight: "):
        values(print)

from __future__ import annotations

import csv
import io
import re
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrt.connectors.files.encoders import CsvEncoder, JsonEncoder
from flowrt.contract.errors import SinkError


class Kind(Enum):
    LATE = "late"


@dataclass
class Airport:
    name: str
    delay: float | None


class Carrier(msgspec.Struct):
    name: str
    delay: float | None = None


class Pair(NamedTuple):
    name: str
    delay: float


def test_json_lines() -> None:
    values = [{"a": [1, None]}, Airport("JFK", 1.5), Carrier("UA"), ("LGA", Carrier("B6", 2)), "é"]

    assert JsonEncoder().encode(values).decode().splitlines() == [
        '{"a":[1,null]}',
        '{"name":"JFK","delay":1.5}',
        '{"name":"UA","delay":null}',
        '["LGA",{"name":"B6","delay":2}]',
        '"é"',
    ]
    assert JsonEncoder().header() == b""


@pytest.mark.parametrize("bad", [object(), 1j, {(1, 2): 3}, "\ud800"])
def test_a_value_that_json_has_no_form_for_is_named(bad: Any) -> None:
    name = type(bad).__name__

    with pytest.raises(SinkError, match=f"a value of type {name} cannot be written as JSON"):
        JsonEncoder().encode([1, bad])


NAN = float("nan")


@pytest.mark.parametrize(
    ("bad", "where"),
    [
        (NAN, "it is"),
        (float("-inf"), "it is"),
        ({"a": None, "b": [1.0, (2.0, NAN)]}, r"its \['b'\]\[1\]\[1\] is"),
        (Airport("JFK", float("inf")), r"its \['delay'\] is"),
        (Carrier("UA", NAN), r"its \['delay'\] is"),
        ({"big": 2**70, "delay": NAN}, r"its \['delay'\] is"),
    ],
)
def test_a_float_that_json_has_no_form_for_is_named_with_its_place(bad: Any, where: str) -> None:
    with pytest.raises(SinkError, match=f"as JSON: {where} nan or infinite, and would become null"):
        JsonEncoder().encode([{"a": None}, bad])

    lines = JsonEncoder(allow_nan=True).encode([{"a": None}, bad]).split(b"\n")
    assert b"null" in lines[1]


@given(
    st.recursive(
        st.none() | st.floats() | st.integers() | st.text() | st.binary(),
        lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
        max_leaves=8,
    )
)
def test_every_float_that_is_not_finite_is_found_and_nothing_else(value: Any) -> None:
    has_one = bool({"nan", "inf", "-inf"} & {*re.findall(r"[-a-z]+", repr(_numbers(value)))})
    refused = pytest.raises(SinkError, match="nan or infinite") if has_one else nullcontext()
    with refused:
        JsonEncoder().encode([None, value])


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return [_numbers(one) for one in value.values()]
    if isinstance(value, list):
        return [_numbers(one) for one in value]
    return value if isinstance(value, float) else 0


def test_csv_rows_of_each_kind() -> None:
    encoder = CsvEncoder()

    lines = encoder.encode(
        [
            {"name": "JFK", "delay": 1.5},
            {"delay": None},
            Airport("LGA", 2),
            Carrier("UA"),
            Pair("B6", 3),
            ["a,b", 'c"'],
        ]
    )

    assert encoder.header() == b"name,delay\n"
    assert lines == b'JFK,1.5\n,\nLGA,2\nUA,\nB6,3\n"a,b","c"""\n'


@pytest.mark.parametrize(
    ("first", "fields"),
    [
        (Airport("JFK", 1), ["name", "delay"]),
        (Carrier("UA"), ["name", "delay"]),
        (Pair("B6", 1), ["name", "delay"]),
        ({"x": 1}, ["x"]),
    ],
)
def test_csv_columns_are_those_of_the_first_value(first: Any, fields: list[str]) -> None:
    encoder = CsvEncoder()
    encoder.encode([first])

    assert encoder.fields == fields


def test_csv_columns_can_be_given() -> None:
    encoder = CsvEncoder(["delay"])

    assert encoder.encode([Airport("JFK", 1.5), {"delay": 2}, (3,)]) == b"1.5\n2\n3\n"


def test_csv_cells_beyond_text_and_numbers() -> None:
    row = (
        True,
        False,
        Kind.LATE,
        date(2013, 1, 2),
        datetime(2013, 1, 2, tzinfo=UTC),
        Decimal("1.50"),
    )

    line = CsvEncoder(list("abcdef")).encode([row])

    assert line == b"true,false,late,2013-01-02,2013-01-02T00:00:00+00:00,1.50\n"


@pytest.mark.parametrize(
    ("fields", "value", "reason"),
    [
        (None, 5, "its columns have no names"),
        (None, (1, 2), r"its columns have no names; give them with fields=\[...\]"),
        (["a"], 5, "a row is a dict, dataclass, Struct, tuple or list"),
        (["a"], (1, 2), "it has 2 fields for 1 column"),
        (["a"], {"a": 1, "b": 2}, "it has 'b' beside the columns"),
        (["a"], Carrier("UA"), "it has no 'a'"),
        (["a"], ([1, 2],), "column 'a' holds a list"),
    ],
)
def test_a_value_that_is_no_csv_row_is_named(
    fields: list[str] | None, value: Any, reason: str
) -> None:
    name = type(value).__name__

    with pytest.raises(SinkError, match=f"type {name} cannot be written as CSV: {reason}"):
        CsvEncoder(fields).encode([value])


def test_text_that_is_no_text_is_an_error() -> None:
    with pytest.raises(SinkError, match="cannot be written as CSV"):
        CsvEncoder(["a"]).encode([("\ud800",)])


@given(st.lists(st.tuples(*[st.text(alphabet='ab,"\n\r é', max_size=4)] * 2), max_size=5))
def test_csv_that_was_written_reads_the_same(rows: list[tuple[str, str]]) -> None:
    text = CsvEncoder(["x", "y"]).encode(rows).decode()

    assert [tuple(row) for row in csv.reader(io.StringIO(text, newline=""))] == rows

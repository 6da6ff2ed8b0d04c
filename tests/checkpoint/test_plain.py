"""Plain data survives JSON as it was."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrt.checkpoint.plain import from_json, to_json
from flowrt.contract.errors import CheckpointError

KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
PLAIN = st.recursive(
    KEYS | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.sampled_from(["$bytes", "$x"]), inner)
        | st.dictionaries(KEYS, inner)
    ),
    max_leaves=20,
)


def through_json(value: Any) -> Any:
    return from_json(msgspec.json.decode(msgspec.json.encode(to_json(value, "it"))))


def exact(value: Any) -> Any:
    """Make 1, 1.0 and True differ, at any depth."""
    return repr(value)


@given(PLAIN)
def test_what_goes_in_comes_out(value: Any) -> None:
    assert exact(through_json(value)) == exact(value)


def test_numbers_that_json_does_not_have() -> None:
    assert math.isnan(through_json(math.nan))
    assert through_json([math.inf, -math.inf, 2**80]) == [math.inf, -math.inf, 2**80]


@pytest.mark.parametrize("value", [{1, 2}, object(), {"a": [b"", object()]}, {("a",): object()}])
def test_what_is_not_plain_is_refused_by_name(value: Any) -> None:
    with pytest.raises(CheckpointError, match="the position of split 'x' holds"):
        to_json(value, "the position of split 'x'")

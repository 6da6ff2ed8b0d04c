"""Whatever builtins hold comes back exactly as it was."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from flowrt.state.codec import codec_for
from flowrt.state.self_describing import decode, encode

ZONES = st.sampled_from([UTC, timezone(timedelta(minutes=-90)), ZoneInfo("Europe/Berlin")])
HASHABLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(allow_nan=False),
    st.text(alphabet=st.characters()),
    st.text(alphabet=st.characters(categories=["Cs", "Lu"]), max_size=3),
    st.binary(),
    st.complex_numbers(allow_nan=False),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.dates(),
    st.timedeltas(),
    st.datetimes(timezones=st.none() | ZONES, allow_imaginary=True),
    st.times(timezones=st.none() | ZONES),
)
KEYS = st.one_of(
    HASHABLE,
    st.tuples(HASHABLE, HASHABLE),
    st.tuples(st.tuples(HASHABLE), st.frozensets(HASHABLE, max_size=3)),
)
VALUES = st.recursive(
    KEYS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.sets(KEYS, max_size=4),
    ),
    max_leaves=6,
)


def shape(value: Any) -> Any:
    """Types and values all the way down, for 1 == True."""
    if isinstance(value, dict):
        return dict, [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, set | frozenset):
        return type(value), sorted(repr(shape(item)) for item in value)
    if isinstance(value, list | tuple):
        return type(value), [shape(item) for item in value]
    return type(value), repr(value)


@given(value=VALUES)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    assert shape(decode(encode(value))) == shape(value)


@given(value=VALUES)
def test_a_stored_form_survives_a_snapshot(value: Any) -> None:
    codec = codec_for(None)
    stored = codec.seal(value)
    again = codec.restore(bytes(codec.encode(stored)))

    assert type(again) is type(stored)
    assert shape(codec.unseal(again)) == shape(codec.unseal(stored)) == shape(value)


@given(value=st.dictionaries(st.text(), st.lists(st.integers(-(2**70), 2**70)) | st.none()))
def test_a_declared_value_survives_a_snapshot(value: Any) -> None:
    codec = codec_for(dict[str, list[int] | None])
    stored = codec.seal(value)
    again = codec.restore(bytes(codec.encode(stored)))

    assert shape(codec.unseal(again)) == shape(value)

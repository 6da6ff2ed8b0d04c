"""Key groups: equal keys share a group, and ranges of groups share the work out whole."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flowrt.contract.state import KEY_GROUPS, group_range, owner_of_group
from flowrt.state.key_groups import key_group
from flowrt.state.keys import encode_key
from flowrt.state.self_describing import decode
from tests.state.classes import Carrier, Deep, Labelled, Level, Place, Point, Stats

ZONES = st.sampled_from(
    [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))]
)
NUMBERS = st.one_of(
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(allow_nan=False),
    st.sampled_from([0.0, -0.0, 1.0, 0.5, 2.0**70]),
    st.decimals(allow_nan=False, places=2, min_value=-3, max_value=3),
    st.sampled_from([Decimal("0.50"), Decimal("Infinity"), Decimal(2**70), Level.ONE]),
    st.complex_numbers(allow_nan=False, max_magnitude=2),
    st.sampled_from([1 + 0j, complex(-0.0, 1), complex(0.0, 1)]),
)
TIMES = st.one_of(
    st.datetimes(timezones=st.none() | ZONES),
    st.sampled_from([datetime.min, datetime.max]).flatmap(  # noqa: DTZ901
        lambda moment: ZONES.map(lambda zone: moment.replace(tzinfo=zone))
    ),
    st.dates(),
    st.timedeltas(),
    st.times(timezones=st.none() | ZONES),
)
SCALARS = st.one_of(
    NUMBERS,
    TIMES,
    st.text(max_size=3),
    st.binary(max_size=3),
    st.none(),
    st.uuids(),
    st.sampled_from(["UA", Carrier.UNITED]),
    st.builds(Point, st.integers(0, 1), st.integers(0, 1)),
    st.builds(Deep, st.builds(Place, st.just("JFK"))),
)
LOOSE: Any = st.one_of(
    st.sampled_from(["UA", Carrier.UNITED, Level.ONE, 1 + 0j, Decimal(1), Decimal("0.5"), 0.5]),
    st.sampled_from([0, 1, True, 1.0, 0.0, -0.0, None, (1,), (1.0,)]),
)
"""What fields may hold, whatever is declared: nobody checks that."""
RECORDS = st.recursive(
    st.one_of(
        st.builds(Place, LOOSE, LOOSE),
        st.builds(Point, LOOSE, LOOSE),
        st.builds(Labelled, LOOSE, LOOSE),
        st.builds(Stats, LOOSE, LOOSE),
    ),
    lambda inner: st.builds(Deep, inner) | st.tuples(inner) | st.frozensets(inner, max_size=2),
    max_leaves=3,
)
KEYS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.tuples(inner), st.tuples(inner, inner), st.frozensets(inner, max_size=3)
    ),
    max_leaves=5,
)


@given(one=KEYS, other=KEYS)
def test_equal_keys_have_equal_bytes_and_groups(one: Any, other: Any) -> None:
    if one == other:
        assert encode_key(one)[0] == encode_key(other)[0]
        assert key_group(one) == key_group(other)
    else:
        assert encode_key(one)[0] != encode_key(other)[0]


@given(one=RECORDS, other=RECORDS)
def test_so_have_equal_records_whatever_is_in_their_fields(one: Any, other: Any) -> None:
    assert (encode_key(one)[0] == encode_key(other)[0]) is (one == other)
    if one == other:
        assert key_group(one) == key_group(other)


@given(key=RECORDS)
def test_a_record_comes_back_as_it_was(key: Any) -> None:
    identity, own = encode_key(key)
    again = decode(own or identity)
    assert again == key
    # Equal is not all: 1, 1.0 and True are told apart. A set has no order, but the same letters.
    assert sorted(repr(again)) == sorted(repr(key))


@given(key=NUMBERS)
def test_a_number_in_any_form_is_one_key(key: Any) -> None:
    forms = [complex(key), Decimal(key.real), float(key.real)] if abs(key) < 2**53 else []
    forms += [int(key.real)] if abs(key) != float("inf") else []
    for form in forms:
        if form == key:
            assert key_group(form) == key_group(key)
            assert key_group((form, "a")) == key_group((key, "a"))


@given(moment=st.datetimes(timezones=ZONES), zone=ZONES)
def test_a_moment_in_any_zone_is_one_key(moment: datetime, zone: timezone) -> None:
    try:
        other = moment.astimezone(zone)
    except OverflowError:
        return
    assert key_group(other) == key_group(moment)


@given(hour=st.integers(5, 20), zone=ZONES)
def test_a_time_of_day_in_any_zone_is_one_key(hour: int, zone: timezone) -> None:
    aware = time(hour, 30, tzinfo=UTC)
    shifted = datetime(2024, 1, 1, hour, 30, tzinfo=UTC).astimezone(zone)
    other = shifted.timetz()

    assert (key_group(other) == key_group(aware)) or other != aware


@given(key=KEYS)
def test_a_key_comes_back_in_its_own_form(key: Any) -> None:
    identity, own = encode_key(key)

    back = decode(own or identity)

    assert back == key
    assert type(back) is type(key)
    if "frozenset" not in repr(key):  # whose order is not ours
        assert repr(back) == repr(key)


@given(parallelism=st.integers(1, KEY_GROUPS))
def test_ranges_share_the_groups_out_whole(parallelism: int) -> None:
    ranges = [group_range(subtask, parallelism) for subtask in range(parallelism)]

    assert [group for groups in ranges for group in groups] == list(range(KEY_GROUPS))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1
    for subtask, groups in enumerate(ranges):
        assert {owner_of_group(group, parallelism) for group in groups} == {subtask}

"""Key groups: fixed for ever, spread evenly, and refused for what can be no key."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from flowrt.contract.errors import StateError
from flowrt.contract.state import KEY_GROUPS
from flowrt.state.key_groups import key_group, key_groups
from tests.state.classes import Basket, ByIdentity, Carrier, Color, Half, Labelled, Place

# Checkpoints on disk depend on these: they never change.
FIXED = [
    ('', 0), ('a', 116), ('JFK', 98), ('\ud800', 14), (0, 0), (1, 79),
    (-1, 0), (1180591620717411303424, 105), (2.5, 0), (None, 36), (b'a', 37),
    (('JFK', 'UA'), 43), (('a', 1, None), 55), (('a', 2.5), 43),
]  # fmt: skip

SPREADS: dict[str, Iterable[Any]] = {
    "sequential": range(10_000),
    "negative": range(-10_000, 0),
    "steps of 128": range(0, 1_280_000, 128),
    "high bits": range(0, 10_000 << 32, 1 << 32),
    "seconds in ms": range(1_700_000_000_000, 1_710_000_000_000, 1_000_000),
    "halves": [number / 2 for number in range(10_000)],
    "similar text": [f"user-{number}" for number in range(10_000)],
    "fixed width": [f"{number:08}" for number in range(10_000)],
    "pairs": [(number // 100, f"x{number % 100}") for number in range(10_000)],
}


@pytest.mark.parametrize(("key", "group"), FIXED, ids=repr)
def test_groups_never_change(key: Any, group: int) -> None:
    assert key_group(key) == group


def test_groups_are_the_same_in_a_process_with_another_hash_seed() -> None:
    code = "from tests.state.test_key_groups import *; print([key_group(k) for k, _ in FIXED])"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    other = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert other.stdout.strip() == str([key_group(key) for key, _ in FIXED])


@pytest.mark.parametrize("name", SPREADS)
def test_keys_are_spread_evenly(name: str) -> None:
    keys = list(SPREADS[name])
    counts = Counter(map(key_group, keys))

    assert set(counts) == set(range(KEY_GROUPS))
    fair = len(keys) / KEY_GROUPS
    assert max(counts.values()) < 1.5 * fair
    assert min(counts.values()) > 0.5 * fair


def test_fields_that_do_not_count_for_equality_do_not_count_for_the_group() -> None:
    assert Labelled(1, "a") == Labelled(1, "b")
    assert key_group(Labelled(1, "a")) == key_group(Labelled(1, "b"))


@dataclass
class Thawed:
    id: int


class Code(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ([1], "type builtins:list is not supported"),
        (("a", {1: 2}), "type builtins:dict is not supported"),
        (object(), "type builtins:object is not supported"),
        (Code("x"), "Code is not supported"),
        (float("nan"), "equals nothing, not even itself"),
        (("a", float("nan")), "equals nothing, not even itself"),
        (Basket(), "Basket could change: make the class frozen"),
        (ByIdentity(1), "eq=True"),
        (Half.UP, "Enums may be plain or mixed with int or str only"),
    ],
)
def test_what_can_be_no_key_is_refused(key: Any, reason: str) -> None:
    with pytest.raises(StateError, match="has no key group") as raised:
        key_group(key)

    assert reason in str(raised.value)


def test_a_class_that_cannot_be_found_again_is_refused() -> None:
    @dataclass(frozen=True)
    class Local:
        id: int

    with pytest.raises(StateError, match="define it at the top of a module"):
        key_group(Local(1))


@pytest.mark.parametrize(
    "key", [Color.RED, Color.GREEN, Carrier.UNITED, Place("JFK"), (Place("x"), 1)]
)
def test_enums_and_frozen_classes_are_keys(key: Any) -> None:
    assert 0 <= key_group(key) < KEY_GROUPS


@pytest.mark.parametrize(
    "keys",
    [
        [],
        list(range(-500, 500)),
        ["a", "JFK", ""],
        ["a", "half \ud800"],
        [1, True, 2.5, "a", None, ("a", 1), 2**70],
        [True, False],
        [2**70, -1],
    ],
)
def test_groups_of_many_keys_are_those_of_each(keys: list[Any]) -> None:
    assert key_groups(keys) == [key_group(key) for key in keys]


def test_one_bad_key_among_many_is_told() -> None:
    with pytest.raises(StateError, match="the key nan has no key group"):
        key_groups([1, float("nan"), "a"])

"""Entries and batches are read as they were added, and damage is told."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import pytest

from flowrt.contract.entries import (
    BATCH,
    CLEAR,
    DROP,
    MAP,
    PLAIN_VALUES,
    VALUE,
    WRITE,
    Entry,
    add_batch,
    add_entry,
    are_plain,
    is_plain,
    kind_of,
    read_batch,
    read_entries,
)
from flowrt.contract.errors import StateError
from flowrt.contract.snapshot import Block


def block(kind: int, *entries: Entry, group: int = 3, count: int | None = None) -> Block:
    data = bytearray((kind,))
    for entry in entries:
        add_entry(data, *entry)
    return Block("s", group, len(entries) if count is None else count, bytes(data))


def write(key: bytes, value: bytes, name: bytes = b"") -> Entry:
    return Entry(WRITE, key, name, value)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000])
def test_entries_are_read_as_they_were_added(size: int) -> None:
    entries = [
        Entry(WRITE, b"k" * size, b"n", b"v", wrapped=True),
        Entry(DROP, b"k", b"n" * size),
        Entry(CLEAR, b"k"),
        Entry(WRITE, b"", b"", b"v" * size),
    ]

    assert list(read_entries(block(MAP, *entries))) == entries
    assert kind_of(block(MAP, *entries)) == MAP


def test_a_block_cut_anywhere_is_damaged() -> None:
    whole = block(MAP, write(b"key", b"v" * 300, b"name"), write(b"k", b"v", b"n"))

    for size in range(len(whole.data)):
        cut = Block(whole.state, whole.group, whole.entries, whole.data[:size])
        with pytest.raises(StateError, match="'s', key group 3, is damaged"):
            list(read_entries(cut))


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x09abc", b"\x01\x03\x00\x00\x00"])
def test_what_is_no_block_is_damaged(data: bytes) -> None:
    with pytest.raises(StateError, match=r"is damaged: .*restore an older checkpoint"):
        list(read_entries(Block("s", 3, 1, data)))


def test_a_wrong_count_is_damage() -> None:
    with pytest.raises(StateError, match="1 entries where 2 were written"):
        list(read_entries(block(VALUE, write(b"a", b"1"), count=2)))


def flat(values: dict[Any, Any]) -> list[Any]:
    return [part for entry in values.items() for part in entry]


def plain_part(values: dict[Any, Any], types: frozenset[type] = PLAIN_VALUES) -> dict[Any, Any]:
    part = {key: value for key, value in values.items() if is_plain(key, value, types)}
    assert are_plain(values.keys(), list(values.values()), types) is (part == values)
    return part


def batch(values: dict[Any, Any], count: int | None = None) -> Block:
    data = bytearray((VALUE,))
    assert add_batch(data, flat(values))
    return Block("s", 3, len(values) if count is None else count, bytes(data))


def read(whole: Block) -> dict[Any, Any]:
    (entry,) = read_entries(whole)
    assert entry.operation == BATCH
    return read_batch(whole, entry.key, entry.value)


PLAIN = {
    0: 1,
    -(2**63): 2**64 - 1,
    "": "x" * 255,
    "1": 1.0,
    1: True,
    2: None,
    3: b"\xff",
    4: math.inf,
    5: -0.0,
    "é\x00": "",
}


def test_a_batch_comes_back_as_it_was() -> None:
    back = read(batch(PLAIN))

    assert repr(back) == repr(PLAIN)
    assert plain_part(PLAIN) == PLAIN


def test_a_number_that_is_none_comes_back_in_a_batch() -> None:
    assert math.isnan(read(batch({"k": math.nan}))["k"])


class Colour(IntEnum):
    RED = 1


class Name(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "key", [True, 1.0, None, b"k", ("a", 1), Colour.RED, Name("n"), "k" * 256], ids=repr
)
def test_only_plain_short_keys_are_for_batches(key: Any) -> None:
    assert plain_part({"a": 1, key: 1, 7: 1}) == {"a": 1, 7: 1}


@pytest.mark.parametrize("value", [[1], (), Colour.RED, Name("n"), "v" * 256, b"v" * 256], ids=repr)
def test_only_plain_short_values_are_for_batches(value: Any) -> None:
    assert plain_part({"a": 1, "k": value, "b": None}) == {"a": 1, "b": None}


def test_values_of_other_types_than_wanted_are_not_for_batches() -> None:
    assert plain_part({"a": 1, "b": 1.0, "c": True}, frozenset({int})) == {"a": 1}
    assert plain_part({"a": 1}, frozenset()) == {}


@pytest.mark.parametrize("odd", [2**64, -(2**63) - 1, "half \ud800"])
def test_what_msgpack_cannot_carry_leaves_nothing_of_a_batch(odd: Any) -> None:
    data = bytearray((VALUE,))

    assert not add_batch(data, ["a", 1, "b", odd])
    assert not add_batch(data, ["a", 1, odd, 1])
    assert data == bytearray((VALUE,))


def test_a_batch_cut_anywhere_is_damaged() -> None:
    whole = batch(PLAIN)

    for size in range(len(whole.data)):
        with pytest.raises(StateError, match="'s', key group 3, is damaged"):
            read(Block("s", 3, whole.entries, whole.data[:size]))


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x01", b"\x91\x01", b"\x92\xc3\x01", b"\x92\x90\x01", b"\x92\x01\x01\x02"],
)
def test_bytes_that_are_no_batch_are_damaged(data: bytes) -> None:
    with pytest.raises(StateError, match="is damaged: a batch cannot be read: "):
        read_batch(batch({}), b"\x01\x00\x00\x00", data)


def test_a_batch_with_a_key_too_few_is_damaged() -> None:
    with pytest.raises(StateError, match="a batch has 1 entries and should have 2"):
        read_batch(batch({}), b"\x02\x00\x00\x00", b"\x94\x01\x01\x01\x02")
    with pytest.raises(StateError, match="1 entries where 2 were written"):
        read(batch({"a": 1}, count=2))


def test_a_map_has_no_batches() -> None:
    with pytest.raises(StateError, match="is damaged"):
        list(read_entries(block(MAP, Entry(BATCH, b"\x00\x00\x00\x00", b"", b"\x90"))))

"""Blocks are merged: last write wins, clears and drops count, batches and entries alike."""

from __future__ import annotations

from typing import Any

import pytest

from flowrt.contract.entries import (
    BATCH,
    CLEAR,
    DROP,
    LIST,
    MAP,
    VALUE,
    WRITE,
    Entry,
    add_batch,
    add_entry,
    read_batch,
    read_entries,
)
from flowrt.contract.errors import StateError
from flowrt.contract.merging import SLICE, merge_blocks, merge_in_slices
from flowrt.contract.snapshot import Block
from flowrt.state.keys import encode_key


def block(kind: int, *entries: Entry | dict[Any, Any], group: int = 3) -> Block:
    data, count = bytearray((kind,)), 0
    for entry in entries:
        if isinstance(entry, Entry):
            add_entry(data, *entry)
            count += 1
        else:
            assert add_batch(data, [part for item in entry.items() for part in item])
            count += len(entry)
    return Block("s", group, count, bytes(data))


def write(key: bytes, value: bytes, name: bytes = b"") -> Entry:
    return Entry(WRITE, key, name, value)


def merged(*blocks: Block, drop_deleted: bool = False) -> list[Entry | dict[Any, Any]]:
    whole = merge_blocks(blocks, drop_deleted)
    return [
        read_batch(whole, entry.key, entry.value) if entry.operation == BATCH else entry
        for entry in read_entries(whole)
    ]


def test_the_last_value_of_a_key_wins() -> None:
    old = block(VALUE, write(b"a", b"1"), write(b"b", b"1"))
    new = block(VALUE, Entry(CLEAR, b"b"), write(b"a", b"2"), Entry(CLEAR, b"c"))

    assert merged(old, new) == [write(b"a", b"2"), Entry(CLEAR, b"b"), Entry(CLEAR, b"c")]
    assert merged(old, new, drop_deleted=True) == [write(b"a", b"2")]


def test_a_value_written_after_its_deletion_is_one_entry() -> None:
    old, new = block(VALUE, Entry(CLEAR, b"a")), block(VALUE, write(b"a", b"2"))

    assert merged(old, new) == [write(b"a", b"2")]


def test_names_of_a_map_are_merged_one_by_one() -> None:
    old = block(MAP, write(b"k", b"1", b"x"), write(b"k", b"1", b"y"), write(b"k", b"1", b"z"))
    new = block(MAP, Entry(DROP, b"k", b"x"), write(b"k", b"2", b"y"), write(b"k", b"2", b"x"))

    kept = [write(b"k", b"2", b"y"), write(b"k", b"1", b"z"), write(b"k", b"2", b"x")]
    assert merged(old, new) == [Entry(DROP, b"k", b"x"), *kept]
    assert merged(old, new, drop_deleted=True) == kept


@pytest.mark.parametrize("kind", [MAP, LIST])
def test_a_clear_forgets_what_came_before(kind: int) -> None:
    old = block(kind, write(b"k", b"1"), write(b"other", b"1"))
    new = block(kind, Entry(CLEAR, b"k"), write(b"k", b"2"))

    assert merged(old, new) == [Entry(CLEAR, b"k"), write(b"k", b"2"), write(b"other", b"1")]
    assert merged(old, new, drop_deleted=True) == [write(b"k", b"2"), write(b"other", b"1")]


def test_elements_of_a_list_stay_in_order() -> None:
    old = block(LIST, write(b"k", b"1"), write(b"j", b"7"), write(b"k", b"1"))
    new = block(LIST, write(b"k", b"3"))

    assert merged(old, new) == [*[write(b"k", v) for v in (b"1", b"1", b"3")], write(b"j", b"7")]


def test_all_deleted_leaves_an_empty_block() -> None:
    whole = merge_blocks([block(VALUE, Entry(CLEAR, b"a"))], drop_deleted=True)

    assert (whole.entries, list(read_entries(whole))) == (0, [])


@pytest.mark.parametrize(
    "blocks",
    [[], [block(VALUE), block(MAP)], [block(VALUE), block(VALUE, group=4)]],
    ids=["none", "kinds", "groups"],
)
def test_blocks_that_do_not_belong_together_are_refused(blocks: list[Block]) -> None:
    with pytest.raises(ValueError, match="one state, key group and kind"):
        merge_blocks(blocks, drop_deleted=False)


def test_the_last_of_batches_wins() -> None:
    old, new = block(VALUE, {"a": 1, 2: "x"}), block(VALUE, {2: "y", 3: None})

    assert merged(old, new) == [{"a": 1, 2: "y", 3: None}]


@pytest.mark.parametrize("key", [1, True, 1.0, -5, 2**63, "", "text", "x" * 300])
def test_an_entry_and_a_batch_of_equal_keys_replace_each_other(key: Any) -> None:
    single = write(encode_key(key)[0], b"1")
    plain = {int(key) if isinstance(key, float | bool) else key: 7, "other": 0}

    assert merged(block(VALUE, plain), block(VALUE, single)) == [single, {"other": 0}]
    assert merged(block(VALUE, single), block(VALUE, plain)) == [plain]
    assert merged(block(VALUE, plain, single, plain)) == [plain]


@pytest.mark.parametrize("key", [b"\x01", None, 2.5, 2**64, ("a",), "half \ud800", b""])
def test_an_entry_of_a_key_that_no_batch_has_stands_beside_batches(key: Any) -> None:
    single, plain = write(encode_key(key)[0], b"1"), {1: 7, "": 8}

    assert merged(block(VALUE, plain), block(VALUE, single)) == [single, plain]
    assert merged(block(VALUE, single), block(VALUE, plain)) == [single, plain]


def test_a_deletion_takes_a_key_out_of_a_batch_and_counts_further_down() -> None:
    gone = Entry(CLEAR, encode_key("a")[0])
    old, new = block(VALUE, {"a": 1, "b": 2}), block(VALUE, gone)

    assert merged(old, new) == [gone, {"b": 2}]
    assert merged(old, new, drop_deleted=True) == [{"b": 2}]
    assert merged(old, new, block(VALUE, {"a": 3})) == [{"b": 2, "a": 3}]


def test_many_batches_are_merged_in_slices() -> None:
    blocks = [block(VALUE, dict.fromkeys(range(SLICE), n)) for n in range(10)]
    blocks.append(block(VALUE, dict.fromkeys(range(SLICE, 4 * SLICE), 10)))

    slices = list(merge_in_slices(blocks, drop_deleted=False))

    assert len(slices) >= 10 + 4
    assert slices[:-1] == [None] * (len(slices) - 1)
    whole = slices[-1]
    assert whole is not None
    assert whole.entries == 4 * SLICE
    assert [len(batch) for batch in merged(whole)] == [SLICE] * 4


def test_a_damaged_batch_is_told_by_a_merge() -> None:
    broken = Entry(BATCH, b"\x01\x00\x00\x00", b"", b"\xc1")
    data = bytearray((VALUE,))
    add_entry(data, *broken)

    with pytest.raises(StateError, match=r"state 's', key group 3, is damaged: a batch cannot be"):
        merge_blocks([Block("s", 3, 1, bytes(data)), block(VALUE)], drop_deleted=False)

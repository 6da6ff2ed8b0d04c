"""Blocks are merged as bytes: last write wins, clears and drops count, and damage is told."""

from __future__ import annotations

import pytest

from flowrt.contract.entries import (
    CLEAR,
    DROP,
    LIST,
    MAP,
    VALUE,
    WRITE,
    Entry,
    add_entry,
    kind_of,
    merge_blocks,
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


def merged(*blocks: Block, drop_deleted: bool = False) -> list[Entry]:
    return list(read_entries(merge_blocks(blocks, drop_deleted)))


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
